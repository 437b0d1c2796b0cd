//! The micro-kernel of every instruction set, and matrix products in the shapes that networks ask
//! for: with packed weights on one thread, and with those that are multiplied once.

mod common;

use common::flops::FlopTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidet::gemm::{self, Bounds, Finish, Keep, Lhs, MatRef, PackedMatrix, Storage};
use oxidet::isa::Isa;
use oxidet::rows::{Rows, RowsMut};

/// What, and `m, n, k` of an `m x k` by `k x n` product.
const SHAPES: [(&str, [usize; 3]); 7] = [
    ("square", [768, 768, 768]),
    ("ResNet-50 layer1 1x1 64->256", [56 * 56, 256, 64]),
    ("ResNet-50 layer2 1x1 512->128", [28 * 28, 128, 512]),
    ("ResNet-50 layer4 1x1 2048->512", [7 * 7, 512, 2048]),
    ("DenseNet-121 denseblock3 1x1 1024->128", [14 * 14, 128, 1024]),
    ("VGG-16 classifier.0, one image", [1, 4096, 25088]),
    ("Faster R-CNN head, 300 regions, 25088->1024", [300, 1024, 25088]),
];

const PLAIN: Finish<'_> =
    Finish { bias: None, residual: None, bounds: Bounds::NONE, stream: false };

fn naive(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; n];
    (0..m)
        .flat_map(|i| {
            sums.fill(0.0);
            for p in 0..k {
                let x = f64::from(a[i * k + p]);
                for (sum, &y) in sums.iter_mut().zip(&b[p * n..]) {
                    *sum += x * f64::from(y);
                }
            }
            sums.iter().map(|&sum| sum as f32).collect::<Vec<_>>()
        })
        .collect()
}

/// One tile, with operands that stay in the first-level cache.
fn micro_kernel(c: &mut Criterion<FlopTime>) {
    const DEPTH: usize = 128;
    let mut group = c.benchmark_group("micro-kernel");
    for isa in Isa::available() {
        let (m, n) = gemm::tile_shape(isa);
        time_packed(&mut group, isa, &gemm::kernel_name(isa), [m, n, DEPTH]);
    }
    group.finish();
}

fn packed(c: &mut Criterion<FlopTime>) {
    let mut group = c.benchmark_group("packed");
    for (name, shape) in SHAPES {
        time_packed(&mut group, Isa::active(), name, shape);
    }
    group.finish();
}

/// A product with a packed right-hand side, on the calling thread.
fn time_packed(
    group: &mut criterion::BenchmarkGroup<'_, FlopTime>,
    isa: Isa,
    name: &str,
    shape: [usize; 3],
) {
    let [m, n, k] = shape;
    let (a, b) = (common::values(m * k, 1), common::values(k * n, 2));
    let weights = PackedMatrix::pack(isa, (k, n), Keep::Stored(Storage::F32), &|p, j, rows| {
        rows.for_each_row(|i, row| row.copy_from_slice(&b[(p + i) * n + j..][..row.len()]));
    });
    let rows = Rows::dense(&a, k);
    let expected = naive(&a, &b, shape);
    group.throughput(Throughput::Elements((2 * m * n * k) as u64));
    common::time_on(
        1,
        group,
        name,
        &mut vec![0.0; m * n],
        |out| common::assert_close(name, out, &expected, 1e-5),
        |out| weights.multiply(&Lhs::matrix(&rows), (0, 0), RowsMut::dense(out, n), PLAIN),
    );
}

fn unpacked(c: &mut Criterion<FlopTime>) {
    let mut group = c.benchmark_group("unpacked");
    for (name, shape) in SHAPES {
        let [m, n, k] = shape;
        let (a, b) = (common::values(m * k, 1), common::values(k * n, 2));
        let (lhs, rhs) = (MatRef::new(&a, m, k, k), MatRef::new(&b, k, n, n));
        let expected = naive(&a, &b, shape);
        group.throughput(Throughput::Elements((2 * m * n * k) as u64));
        let check = |got: Vec<f32>| common::assert_close(name, &got, &expected, 1e-5);
        common::time(&mut group, name, check, || gemm::product(lhs, rhs));
    }
    group.finish();
}

criterion_group!(
    name = benches;
    config = common::criterion_flops();
    targets = micro_kernel, packed, unpacked
);
criterion_main!(benches);
