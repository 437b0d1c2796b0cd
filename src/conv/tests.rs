//! Every algorithm, for every instruction set of this CPU, against the naive sums.

use super::epilogue::{Activation, Epilogue};
use super::geometry::{Conv2d, Padding};
use super::options::{Options, Precision};
use super::prepared::PreparedConv;
use super::reference::{self, cases, close, values, winograd_cases};
use super::{Algorithm, Storage};
use crate::isa::Isa;
use crate::rows::{Rows, RowsMut};

const DIRECT: Options = Options { precision: Precision::Direct, storage: Storage::F32 };

/// Runs a layer on rows with gaps, the way a plan does.
fn run(
    conv: &Conv2d,
    layer: &PreparedConv,
    input: &[f32],
    (residual, activation): (Option<&[f32]>, Activation),
) -> Vec<f32> {
    let (gap, out) = (3, conv.out_channels);
    let stride = conv.in_channels + gap;
    let mut spread = vec![f32::NAN; input.len() / conv.in_channels.max(1) * stride];
    for (to, from) in spread.chunks_mut(stride).zip(input.chunks(conv.in_channels.max(1))) {
        to[..from.len()].copy_from_slice(from);
    }
    let count = conv.batch * conv.input.0 * conv.input.1;
    let mut output = vec![f32::NAN; conv.output_pixels() * (out + gap)];
    let mut scratch = vec![f32::NAN; layer.scratch_len(conv.batch)];
    layer.run(
        conv.batch,
        Rows::new(&spread, count, conv.in_channels, stride),
        RowsMut::new(&mut output, conv.output_pixels(), out, out + gap),
        Epilogue {
            residual: residual.map(|r| Rows::new(r, conv.output_pixels(), out, out)),
            activation,
        },
        &mut scratch,
    );
    assert!(output.chunks(out + gap).all(|row| row[out..].iter().all(|x| x.is_nan())));
    output.chunks(out + gap).flat_map(|row| row[..out].to_vec()).collect()
}

/// Every algorithm that can compute `conv`, for every instruction set of this CPU.
fn layers(conv: &Conv2d, weight: &[f32], bias: Option<&[f32]>) -> Vec<(PreparedConv, f32)> {
    let out = conv.out_channels;
    let source = |k: usize, o: usize, rows: RowsMut<'_>| {
        rows.for_each_row(|i, row| {
            row.copy_from_slice(&weight[(k + i) * out + o..][..row.len()]);
        });
    };
    let conv = Conv2d { batch: 1, ..*conv };
    let mut layers = Vec::new();
    for isa in Isa::available() {
        for algorithm in Algorithm::candidates(&conv) {
            let tolerance = match algorithm {
                Algorithm::Direct | Algorithm::Grouped => 2e-6,
                Algorithm::Winograd(_) => 5e-5,
            };
            let layer = PreparedConv::with_algorithm(algorithm, &conv, isa, &source, bias, DIRECT);
            layers.push((layer, tolerance));
        }
    }
    layers
}

/// Few channels a group: channels around the vectors' lengths, multipliers, lanes of one group and
/// of several, whole and partial blocks of pixels, clipped taps at every side.
fn grouped_cases() -> Vec<Conv2d> {
    let conv = |(n, h, w), (group_in, group_out, groups), kernel: (usize, usize)| {
        move |stride, padding, dilation| {
            let input = (n, h, w, group_in * groups);
            let weight = (kernel.0, kernel.1, group_in, group_out * groups);
            Conv2d::new(input, weight, stride, padding, dilation, groups).unwrap()
        }
    };
    let one = Padding::symmetric(1, 1);
    let ragged = Padding { top: 2, bottom: 0, left: 0, right: 3 };
    let wide = Padding { top: 40, bottom: 31, left: 50, right: 60 };
    let mut cases = Vec::new();
    for groups in [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33] {
        cases.push(conv((2, 6, 7), (1, 1, groups), (3, 3))((1, 1), one, (1, 1)));
        cases.push(conv((1, 5, 9), (1, 2, groups), (3, 2))((2, 1), one, (1, 1)));
        cases.push(conv((1, 7, 5), (1, 3, groups), (2, 3))((1, 2), ragged, (1, 1)));
    }
    for channels in 1..=9 {
        cases.push(conv((2, 5, 6), (channels, channels, 6), (3, 3))((1, 1), one, (1, 1)));
        cases.push(conv((1, 6, 5), (channels, 10 - channels, 5), (3, 1))((2, 2), one, (1, 1)));
    }
    for (group_in, group_out) in [(4, 8), (8, 4), (12, 17), (16, 16), (17, 20), (31, 31)] {
        cases.push(conv((1, 9, 8), (group_in, group_out, 3), (3, 3))((1, 1), ragged, (1, 2)));
    }
    for groups in [4, 20] {
        for (size, stride) in [((1, 24), 1), ((3, 30), 1), ((20, 17), 2), ((30, 1), 3)] {
            let image = (1, size.0, size.1);
            let square = conv(image, (1, 1, groups), (3, 3));
            cases.push(square((stride, stride), one, (1, 1)));
            cases.push(square((1, 1), wide, (1, 1)));
            cases.push(square((1, 1), Padding::symmetric(6, 6), (3, 5)));
            let many = conv(image, (4, 4, groups), (5, 3));
            cases.push(many((stride, 1), Padding::symmetric(2, 1), (1, 1)));
            cases.push(many((7, 9), wide, (2, 1)));
        }
    }
    cases.push(conv((1, 70, 65), (1, 1, 36), (3, 3))((1, 1), one, (1, 1)));
    cases.push(conv((3, 60, 61), (8, 8, 4), (3, 3))((1, 1), one, (1, 1)));
    cases.push(conv((1, 4, 4), (0, 3, 2), (3, 3))((1, 1), one, (1, 1)));
    cases
}

/// Padding that nobody could copy.
fn padded_cases() -> Vec<Conv2d> {
    let conv = |channels, out, kernel, stride, padding, dilation, groups| {
        let weight = (kernel, kernel, channels / groups, out);
        Conv2d::new((2, 5, 4, channels), weight, stride, padding, dilation, groups).unwrap()
    };
    let huge = Padding::symmetric(1_000_000, 1_000_000);
    let left = Padding { top: 2, bottom: 1, left: 900_000_000, right: 3 };
    let steps = (1_000_000, 1_000_000);
    vec![
        conv(3, 5, 3, steps, huge, (1, 1), 1),
        conv(40, 50, 2, (999_999, 1_000_002), huge, (1, 2), 1),
        conv(4, 66, 1, (1_000_001, 999_999), huge, (1, 1), 2),
        conv(4, 6, 3, (1, 300_000_001), left, (1, 1), 2),
        conv(6, 6, 3, steps, huge, (1, 1), 6),
        conv(6, 12, 2, (1_000_000, 999_997), huge, (2, 3), 6),
        conv(8, 8, 2, (1, 1), Padding::symmetric(30_000, 0), (60_001, 1), 1),
    ]
}

fn all_cases() -> impl Iterator<Item = Conv2d> {
    cases().into_iter().chain(winograd_cases()).chain(grouped_cases()).chain(padded_cases())
}

#[test]
fn scratch_memory_is_in_proportion_to_the_images() {
    for conv in padded_cases().into_iter().chain(grouped_cases()) {
        let weight = values(conv.weight_len(), 2);
        let single = Conv2d { batch: 1, ..conv };
        let floats = single.input_len() + single.output_len() + conv.weight_len();
        let most = 64 * 1024 + 16 * floats;
        for (layer, _) in layers(&conv, &weight, None) {
            let scratch = layer.scratch_len(1);
            // A padded copy is shared by all workers.
            let most = most * crate::parallel::workers().max(2);
            assert!(scratch <= most, "{scratch} {} {conv:?}", layer.algorithm());
        }
    }
}

#[test]
fn every_algorithm_agrees_with_the_naive_sums() {
    for conv in all_cases() {
        let input = values(conv.input_len(), 1);
        let weight = values(conv.weight_len(), 2);
        let bias = values(conv.out_channels, 3);
        let residual = values(conv.output_len(), 4);
        let clamp = Activation::Clamp(-0.5, 200.0);
        let plain = reference::forward(&conv, &input, &weight, None);
        let mut finished = reference::forward(&conv, &input, &weight, Some(&bias));
        for (value, residual) in finished.iter_mut().zip(&residual) {
            *value = clamp.apply(*value + residual);
        }
        for (layer, tolerance) in layers(&conv, &weight, None) {
            let got = run(&conv, &layer, &input, (None, Activation::Identity));
            assert!(close(&got, &plain, tolerance), "{} {conv:?}", layer.algorithm());
        }
        for (layer, tolerance) in layers(&conv, &weight, Some(&bias)) {
            let got = run(&conv, &layer, &input, (Some(&residual), clamp));
            assert!(close(&got, &finished, tolerance), "{} {conv:?}", layer.algorithm());
        }
    }
}

#[test]
fn the_number_of_threads_and_of_images_changes_no_bit() {
    for conv in all_cases() {
        let (input, weight) = (values(conv.input_len(), 1), values(conv.weight_len(), 2));
        for (layer, _) in layers(&conv, &weight, None) {
            let plain = (None, Activation::Relu);
            let run_on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| run(&conv, &layer, &input, plain))
            };
            let together = run_on(1);
            for threads in [2, 3, 8] {
                let same = together == run_on(threads);
                assert!(same, "{threads} threads, {} {conv:?}", layer.algorithm());
            }
            let single = Conv2d { batch: 1, ..conv };
            let lengths = (single.input_len().max(1), single.output_len().max(1));
            for (x, y) in input.chunks(lengths.0).zip(together.chunks(lengths.1)) {
                assert_eq!(run(&single, &layer, x, plain), y, "{}", layer.algorithm());
            }
        }
    }
}

/// Runs a layer into memory that begins on a cache line, with all that an epilogue has.
fn run_on_lines(layer: &PreparedConv, conv: &Conv2d, input: &[f32], residual: &[f32]) -> Vec<f32> {
    let mut output = vec![f32::NAN; conv.output_len() + 16];
    let start = output.as_ptr().align_offset(64);
    let mut scratch = vec![f32::NAN; layer.scratch_len(conv.batch)];
    let (input, out) = (Rows::dense(input, conv.in_channels), conv.out_channels);
    let rows = RowsMut::dense(&mut output[start..][..conv.output_len()], out);
    assert!(rows.are_on_lines() || !out.is_multiple_of(16));
    let epilogue =
        Epilogue { residual: Some(Rows::dense(residual, out)), activation: Activation::Relu };
    layer.run(conv.batch, input, rows, epilogue, &mut scratch);
    output[start..][..conv.output_len()].to_vec()
}

#[test]
fn results_too_large_for_the_caches_are_those_of_single_images() {
    // Whole panels of every instruction set, whole lines only, and neither; two images are large.
    for (kernel, out, side) in [(1, 64, 222), (3, 64, 222), (1, 48, 257), (1, 24, 363)] {
        let padding = Padding::symmetric(kernel / 2, kernel / 2);
        let size = ((2, side, side, 8), (kernel, kernel, 8, out));
        let conv = Conv2d::new(size.0, size.1, (1, 1), padding, (1, 1), 1).unwrap();
        let (input, residual) = (values(conv.input_len(), 1), values(conv.output_len(), 4));
        let (weight, bias) = (values(kernel * kernel * 8 * out, 2), values(out, 3));
        let outgrows = |len| RowsMut::dense(&mut vec![0.0; len], out).outgrow_caches();
        assert!(outgrows(conv.output_len()) && !outgrows(conv.output_len() / 2));
        let one = Conv2d { batch: 1, ..conv };
        for (layer, _) in layers(&conv, &weight, Some(&bias)) {
            let together = run_on_lines(&layer, &conv, &input, &residual);
            let images = input.chunks(one.input_len()).zip(residual.chunks(one.output_len()));
            let apart = images.map(|(x, r)| run_on_lines(&layer, &one, x, r));
            assert!(together == apart.collect::<Vec<_>>().concat(), "{layer:?}");
        }
    }
}

/// Largest error of a value, over the largest value.
fn error(got: &[f32], expected: &[f32]) -> f32 {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let errors = &mut got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    largest(errors) / largest(&mut expected.iter().map(|b| b.abs()))
}

#[test]
fn errors_grow_with_tiles_and_channels_as_documented() {
    // Limits of docs/numerics.md for inputs behind a ReLU: (channels, direct, F2, F4, F6).
    let limits = [
        (64, [1e-6, 1e-6, 1e-5, 2e-5]),
        (256, [1e-6, 2e-6, 1.5e-5, 3e-5]),
        (512, [1e-6, 2e-6, 2.5e-5, 4e-5]),
    ];
    for (channels, limits) in limits {
        let (x, w) = ((1, 24, 24, channels), (3, 3, channels, 32));
        let one = Padding::symmetric(1, 1);
        let conv = Conv2d::new(x, w, (1, 1), one, (1, 1), 1).unwrap();
        let input: Vec<f32> = values(conv.input_len(), 1).iter().map(|x| x.max(0.0)).collect();
        let weight = values(conv.weight_len(), 2);
        let expected = reference::forward(&conv, &input, &weight, None);
        for (layer, _) in layers(&conv, &weight, None) {
            let limit = match Algorithm::candidates(&conv)
                .iter()
                .position(|algorithm| algorithm.to_string() == layer.algorithm())
            {
                Some(index) => limits[index],
                None => limits[0],
            };
            let got = run(&conv, &layer, &input, (None, Activation::Identity));
            let error = error(&got, &expected);
            println!("{channels} channels, {}: {error:.1e}", layer.algorithm());
            assert!(error <= limit, "{channels} channels, {}: {error}", layer.algorithm());
        }
    }
}

#[test]
fn weights_too_large_for_their_storage_are_refused() {
    let linear =
        Conv2d::new((1, 1, 1, 3), (1, 1, 3, 2), (1, 1), Padding::default(), (1, 1), 1).unwrap();
    let check = |storage, largest: f32| {
        let options = Options { precision: Precision::Winograd, storage };
        let weight = [0.5, f32::INFINITY, -largest, 1.0, f32::NAN, 0.0];
        PreparedConv::check_range(&linear, &weight, options, "fc6")
    };
    assert_eq!(check(Storage::F32, f32::MAX), Ok(()));
    // What rounds down to the largest number, and what no longer does.
    assert_eq!(check(Storage::F16, 65519.0), Ok(()));
    assert_eq!(
        check(Storage::F16, 65520.0).unwrap_err().to_string(),
        "weight_storage: expected f32 or bf16, because f16 ends at 65504.0, \
         got f16 with a weight of 65520.0 in fc6"
    );
    assert_eq!(check(Storage::Bf16, 1e38), Ok(()));
    assert!(check(Storage::Bf16, f32::MAX).is_err());
}

#[test]
fn nan_and_infinity_reach_only_the_outputs_that_see_them() {
    let grouped = grouped_cases().into_iter().step_by(7);
    let convs = [winograd_cases().remove(1), padded_cases().remove(1)].into_iter();
    convs.chain(grouped).filter(|conv| conv.in_channels > 0).for_each(check_not_finite);
}

fn check_not_finite(conv: Conv2d) {
    let weight = values(conv.weight_len(), 2);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut input = values(conv.input_len(), 1);
        input[conv.input_len() / 3] = bad;
        let expected = reference::forward(&conv, &input, &weight, None);
        for (layer, _) in layers(&conv, &weight, None) {
            let got = run(&conv, &layer, &input, (None, Activation::Identity));
            for (got, expected) in got.iter().zip(&expected) {
                let same = got.is_nan() == expected.is_nan()
                    && got.is_infinite() == expected.is_infinite()
                    && (!got.is_finite() || (got - expected).abs() < 1e-3);
                assert!(same, "{bad}: {got}, expected {expected}, {}", layer.algorithm());
            }
        }
    }
}

#[test]
fn an_infinite_weight_is_not_transformed() {
    // Without padding: whether zeros around an image meet the weight is left open.
    let (x, w) = ((1, 24, 24, 64), (3, 3, 64, 64));
    let conv = Conv2d::new(x, w, (1, 1), Padding::default(), (1, 1), 1).unwrap();
    let options = Options { precision: Precision::Winograd, storage: Storage::F32 };
    let (input, mut weight) = (values(conv.input_len(), 1), values(conv.weight_len(), 2));
    let ordinary = PreparedConv::new(&conv, &weight, None, options);
    assert!(ordinary.algorithm().starts_with("winograd"));
    for (at, bad) in [(5, f32::INFINITY), (conv.weight_len() / 2, f32::NAN), (0, f32::MAX)] {
        let ordinary = std::mem::replace(&mut weight[at], bad);
        let layer = PreparedConv::new(&conv, &weight, None, options);
        let got = run(&conv, &layer, &input, (None, Activation::Identity));
        let expected = reference::forward(&conv, &input, &weight, None);
        for (got, expected) in got.iter().zip(&expected) {
            let same = got.is_nan() == expected.is_nan()
                && (!got.is_infinite() && !expected.is_infinite() || got == expected);
            assert!(same, "weight {bad}: {got}, expected {expected}");
        }
        weight[at] = ordinary;
    }
}

#[test]
fn a_layer_for_another_image_size_shares_the_weights() {
    let conv = |size| {
        let weight = (3, 3, 8, 40);
        let one = Padding::symmetric(1, 1);
        Conv2d::new((1, size, size, 8), weight, (1, 1), one, (1, 1), 1).unwrap()
    };
    let (small, large) = (conv(9), conv(21));
    let weight = values(small.weight_len(), 2);
    let input = values(large.input_len(), 1);
    let pairs = layers(&small, &weight, None).into_iter().zip(layers(&large, &weight, None));
    for ((layer, _), (fresh, _)) in pairs {
        let resized = layer.resized(&large);
        let plain = (None, Activation::Identity);
        let expected = run(&large, &fresh, &input, plain);
        assert_eq!(run(&large, &resized, &input, plain), expected, "{}", layer.algorithm());
        assert_eq!(resized.weight_bytes(), layer.weight_bytes());
    }
}

#[test]
fn a_linear_layer_reads_channels_first_weights() {
    let (h, w, c, out) = (2, 3, 5, 4);
    let (x, weight) = (values(2 * h * w * c, 1), values(h * w * c * out, 2));
    let layer = PreparedConv::linear((h, w, c), &weight, None, out, DIRECT).unwrap();
    let mut y = vec![0.0; 2 * out];
    layer.run(
        2,
        Rows::dense(&x, h * w * c),
        RowsMut::dense(&mut y, out),
        Epilogue { residual: None, activation: Activation::Identity },
        &mut [],
    );
    for n in 0..2 {
        for o in 0..out {
            let mut sum = 0.0;
            for (k, weight) in weight[o * h * w * c..][..h * w * c].iter().enumerate() {
                let (channel, pixel) = (k / (h * w), k % (h * w));
                sum += x[n * h * w * c + pixel * c + channel] * weight;
            }
            assert!((sum - y[n * out + o]).abs() < 1e-5);
        }
    }
}
