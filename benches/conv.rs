//! Convolutions with the shapes of real networks: every distinct layer as plans run it, with packed
//! weights, and a few forward and backward as the eager interface does. Throughput counts the
//! operations of the direct sum.
//!
//! ```text
//! cargo bench --bench conv -- 'plan/ResNet-50'    one network
//! cargo bench --bench conv -- eager
//! ```

mod common;

use std::time::Duration;

use common::flops::FlopTime;
use common::layers::{Layer, layers};
use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use oxidet::conv::{self, Activation, Conv2d, Epilogue, Options, Precision, PreparedConv, Storage};
use oxidet::parallel;
use oxidet::rows::{Rows, RowsMut};

/// What Winograd layers promise, as max|a - b| / max|b|.
const TOLERANCE: f32 = 5e-5;

/// Layers whose passes are timed one by one, as network and layer.
const EAGER: [(&str, &str); 8] = [
    ("ResNet-50", "conv1"),
    ("ResNet-18", "layer1.0.conv1"),
    ("ResNet-18", "layer3.0.conv2"),
    ("ResNet-18", "layer4.0.conv2"),
    ("ResNet-50", "layer2.1.conv1"),
    ("VGG-16", "features.24"),
    ("MobileNet-v2", "features.3.conv.1.0"),
    ("ResNeXt-50", "layer1.0.conv2"),
];

fn plan(c: &mut Criterion<FlopTime>) {
    let options = Options { precision: Precision::Winograd, storage: Storage::F32 };
    let layers = layers();
    for of_network in layers.chunk_by(|a, b| a.network == b.network) {
        let mut group = c.benchmark_group(format!("plan/{}", of_network[0].network));
        // There are many.
        group
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(800))
            .sampling_mode(SamplingMode::Flat);
        for layer in of_network {
            time_prepared(&mut group, layer, options);
        }
        group.finish();
    }
}

/// One layer with bias and ReLU, from dense rows to dense rows.
fn time_prepared(group: &mut BenchmarkGroup<'_, FlopTime>, layer: &Layer, options: Options) {
    let conv = &layer.conv;
    let input = &common::values(conv.input_len(), 1);
    let weight = &common::values(conv.weight_len(), 2);
    let bias = &common::values(conv.out_channels, 3);
    let prepared = &PreparedConv::new(conv, weight, Some(bias), options);
    let epilogue = Epilogue { residual: None, activation: Activation::Relu };
    let title = layer.title();
    // Not in the title, by which criterion finds the last run's time.
    println!("{title}: {}", prepared.algorithm());

    let mut state = (Vec::new(), vec![0.0; conv.output_len()]);
    let check = |(_, output): &mut (Vec<f32>, Vec<f32>)| {
        let mut expected = conv::forward(conv, input, weight, Some(bias), Precision::Direct);
        expected.iter_mut().for_each(|value| *value = value.max(0.0));
        common::assert_close(&title, output, &expected, TOLERANCE);
    };
    let run = |(scratch, output): &mut (Vec<f32>, Vec<f32>)| {
        parallel::assemble(|| {
            scratch.resize(prepared.scratch_len(1), 0.0);
            let output = RowsMut::dense(output, conv.out_channels);
            prepared.run(1, Rows::dense(input, conv.in_channels), output, epilogue, scratch);
        });
    };
    group.throughput(Throughput::Elements(2 * conv.macs() as u64));
    common::time_in_place(group, &title, &mut state, check, run);
}

fn eager(c: &mut Criterion<FlopTime>) {
    let layers = layers();
    for pass in ["forward", "backward_data", "backward_weight"] {
        let mut group = c.benchmark_group(format!("eager/{pass}"));
        for (network, name) in EAGER {
            let layer = layers
                .iter()
                .find(|layer| (layer.network, layer.name) == (network, name))
                .expect("a layer of layers.txt");
            time_pass(&mut group, pass, &format!("{network} {}", layer.title()), &layer.conv);
        }
        group.finish();
    }
}

fn time_pass(group: &mut BenchmarkGroup<'_, FlopTime>, pass: &str, title: &str, conv: &Conv2d) {
    let input = &common::values(conv.input_len(), 1);
    let weight = &common::values(conv.weight_len(), 2);
    let grad = &common::values(conv.output_len(), 3);
    let precision = Precision::Winograd;
    let kernel = || match pass {
        "forward" => conv::forward(conv, input, weight, None, precision),
        "backward_data" => conv::backward_data(conv, grad, weight, precision),
        _ => conv::backward_weight(conv, input, grad, precision),
    };
    let expected = match pass {
        "forward" => conv::reference::forward(conv, input, weight, None),
        "backward_data" => conv::reference::backward_data(conv, grad, weight),
        _ => conv::reference::backward_weight(conv, input, grad).0,
    };
    group.throughput(Throughput::Elements(2 * conv.macs() as u64));
    let check = |got: Vec<f32>| common::assert_close(title, &got, &expected, TOLERANCE);
    common::time(group, title, check, kernel);
}

criterion_group!(name = benches; config = common::criterion_flops(); targets = plan, eager);
criterion_main!(benches);
