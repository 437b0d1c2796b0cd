//! The box and RoI kernels, at the sizes Faster R-CNN meets. "elem/s" are pairs of boxes, boxes and
//! pooled numbers.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidet::boxes::{BBox, Cutoff, iou_matrix, nms};
use oxidet::roi::{Align, FeatureMap, Layout, Region, align, reference};

/// Boxes of 16 to 256 pixels in an image of 600 x 800.
fn boxes(count: usize, seed: u64) -> Vec<BBox<f32>> {
    common::values(4 * count, seed)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[y, x, h, w]| {
            let (y, x) = (272.0 * (1.0 + y), 372.0 * (1.0 + x));
            [y, x, y + 136.0 + 120.0 * h, x + 136.0 + 120.0 * w]
        })
        .collect()
}

fn iou(a: &BBox<f32>, b: &BBox<f32>) -> f32 {
    let extent = |low: f32, high: f32| (high - low).max(0.0);
    let common = extent(a[0].max(b[0]), a[2].min(b[2])) * extent(a[1].max(b[1]), a[3].min(b[3]));
    let area = |b: &BBox<f32>| (b[2] - b[0]) * (b[3] - b[1]);
    common / (area(a) + area(b) - common)
}

fn overlaps(c: &mut Criterion) {
    let mut group = c.benchmark_group("iou");
    for (name, a, b) in [("anchors x truths", 16650, 20), ("1000 x 1000", 1000, 1000)] {
        let (a, b) = (boxes(a, 1), boxes(b, 2));
        let expected: Vec<f32> = a.iter().flat_map(|x| b.iter().map(|y| iou(x, y))).collect();
        group.throughput(Throughput::Elements((a.len() * b.len()) as u64));
        let check = |got: Vec<f32>| common::assert_close(name, &got, &expected, 1e-6);
        common::time(&mut group, name, check, || iou_matrix(&a, &b).unwrap());
    }
    group.finish();
}

fn suppression(c: &mut Criterion) {
    let mut group = c.benchmark_group("nms");
    for count in [300, 2000, 6000, 12000] {
        let boxes = boxes(count, 3);
        let scores: Vec<f64> = common::values(count, 4).into_iter().map(f64::from).collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
        let mut expected: Vec<usize> = Vec::new();
        for i in order {
            if expected.iter().all(|&j| iou(&boxes[j], &boxes[i]) <= 0.7) {
                expected.push(i);
            }
        }
        let cutoff = Cutoff::new(0.7, false, false);
        group.throughput(Throughput::Elements(count as u64));
        common::time(
            &mut group,
            &format!("{count} boxes"),
            |kept: Vec<usize>| assert_eq!(kept, expected),
            || nms(&boxes, Some(&scores), cutoff, None).expect("as many scores as boxes"),
        );
    }
    group.finish();
}

fn roi_align(c: &mut Criterion) {
    let mut group = c.benchmark_group("roi_align");
    let name = "300 regions, 7x7 of 37x50x512";
    let map = FeatureMap::new((1, 37, 50, 512), (7, 7)).expect("a legal map");
    let operator = Align { map, scale: 1.0 / 16.0, sampling_ratio: 2, aligned: true };
    let input = common::values(map.input_len(), 5);
    let regions: Vec<Region> = boxes(300, 6)
        .into_iter()
        .map(|[y1, x1, y2, x2]| Region { image: 0, x1, y1, x2, y2 })
        .collect();
    let expected = reference::align(&operator, &input, &regions);
    group.throughput(Throughput::Elements(expected.len() as u64));
    common::time(
        &mut group,
        name,
        |got: Vec<f32>| common::assert_close(name, &got, &expected, 1e-4),
        || {
            let mut output = vec![0.0; expected.len()];
            align(&operator, Layout::ChannelsLast, &input, &regions, &mut output)
                .expect("regions of this batch");
            output
        },
    );
    group.finish();
}

criterion_group!(
    name = benches;
    config = common::criterion();
    targets = overlaps, suppression, roi_align
);
criterion_main!(benches);
