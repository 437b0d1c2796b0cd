//! Matrix products, in the shapes that networks ask for.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidet::gemm::{MatRef, product};

/// What, and `m, n, k` of an `m x k` by `k x n` product.
const SHAPES: [(&str, [usize; 3]); 4] = [
    ("square", [768, 768, 768]),
    ("ResNet-50 layer1 1x1 64->256", [56 * 56, 256, 64]),
    ("ResNet-50 layer4 1x1 2048->512", [7 * 7, 512, 2048]),
    ("Faster R-CNN head, 300 regions, 25088->1024", [300, 1024, 25088]),
];

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

fn matrix_product(c: &mut Criterion<common::flops::FlopTime>) {
    let mut group = c.benchmark_group("gemm");
    for (name, shape) in SHAPES {
        let [m, n, k] = shape;
        let (a, b) = (common::values(m * k, 1), common::values(k * n, 2));
        let (lhs, rhs) = (MatRef::new(&a, m, k, k), MatRef::new(&b, k, n, n));
        let expected = naive(&a, &b, shape);
        group.throughput(Throughput::Elements((2 * m * n * k) as u64));
        let check = |got: Vec<f32>| common::assert_close(name, &got, &expected, 1e-5);
        common::time(&mut group, name, check, || product(lhs, rhs));
    }
    group.finish();
}

criterion_group!(name = benches; config = common::criterion_flops(); targets = matrix_product);
criterion_main!(benches);
