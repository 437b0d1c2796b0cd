//! Convolutions with the shapes of real networks, forward and both gradients. "elem/s" are
//! floating-point operations of the direct sum.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidet::conv::{self, Conv2d, Padding};

/// A square layer of a network, batch 1.
struct Layer {
    name: &'static str,
    size: usize,
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
    groups: usize,
}

const LAYERS: [Layer; 7] = [
    Layer::new("ResNet conv1 7x7 s2 3->64 @224", 224, (3, 64), 7, 2, 1),
    Layer::new("ResNet layer1 3x3 64->64 @56", 56, (64, 64), 3, 1, 1),
    Layer::new("ResNet layer3 3x3 256->256 @14", 14, (256, 256), 3, 1, 1),
    Layer::new("ResNet layer4 3x3 512->512 @7", 7, (512, 512), 3, 1, 1),
    Layer::new("ResNet-50 layer2 1x1 512->128 @28", 28, (512, 128), 1, 1, 1),
    Layer::new("VGG-16 conv5 3x3 512->512 @14", 14, (512, 512), 3, 1, 1),
    Layer::new("MobileNet depthwise 3x3 144 @56", 56, (144, 144), 3, 1, 144),
];

impl Layer {
    const fn new(
        name: &'static str,
        size: usize,
        channels: (usize, usize),
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Self {
        Layer { name, size, channels, kernel, stride, groups }
    }

    fn geometry(&self) -> Conv2d {
        let pad = self.kernel / 2;
        Conv2d::new(
            (1, self.size, self.size, self.channels.0),
            (self.kernel, self.kernel, self.channels.0 / self.groups, self.channels.1),
            (self.stride, self.stride),
            Padding::symmetric(pad, pad),
            (1, 1),
            self.groups,
        )
        .expect("a legal layer")
    }
}

fn convolution(c: &mut Criterion) {
    for pass in ["forward", "backward_data", "backward_weight"] {
        let mut group = c.benchmark_group(format!("conv/{pass}"));
        for layer in &LAYERS {
            let conv = &layer.geometry();
            let input = &common::values(conv.input_len(), 1);
            let weight = &common::values(conv.weight_len(), 2);
            let grad = &common::values(conv.output_len(), 3);
            let reference = || match pass {
                "forward" => conv::reference::forward(conv, input, weight, None),
                "backward_data" => conv::reference::backward_data(conv, grad, weight),
                _ => conv::reference::backward_weight(conv, input, grad).0,
            };
            let kernel = || match pass {
                "forward" => conv::forward(conv, input, weight, None),
                "backward_data" => conv::backward_data(conv, grad, weight),
                _ => conv::backward_weight(conv, input, grad),
            };
            let expected = reference();
            group.throughput(Throughput::Elements(2 * conv.macs() as u64));
            common::time(
                &mut group,
                layer.name,
                |got: Vec<f32>| common::assert_close(layer.name, &got, &expected, 1e-5),
                kernel,
            );
        }
        group.finish();
    }
}

criterion_group!(name = benches; config = common::criterion(); targets = convolution);
criterion_main!(benches);
