//! The definition of convolution as naive float64 loops, and the geometries that tests run over.

use super::geometry::{Axis, Conv2d};

/// Calls `visit(input index, weight index, output index)` for every product of the forward pass.
fn for_each_product(conv: &Conv2d, mut visit: impl FnMut(usize, usize, usize)) {
    let (group_in, group_out) = (conv.group_in(), conv.group_out());
    for pixel in 0..conv.output_pixels() {
        let (image, i, j) = conv.output_position(pixel);
        for u in 0..conv.kernel.0 {
            for v in 0..conv.kernel.1 {
                let y = conv.input_coordinate(Axis::Rows, i, u);
                let x = conv.input_coordinate(Axis::Cols, j, v);
                let (Some(y), Some(x)) = (y, x) else { continue };
                for o in 0..conv.out_channels {
                    for c in 0..group_in {
                        let channel = o / group_out * group_in + c;
                        let from = ((image * conv.input.0 + y) * conv.input.1 + x)
                            * conv.in_channels
                            + channel;
                        let tap = u * conv.kernel.1 + v;
                        visit(
                            from,
                            (tap * group_in + c) * conv.out_channels + o,
                            pixel * conv.out_channels + o,
                        );
                    }
                }
            }
        }
    }
}

fn rounded(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|v| v as f32).collect()
}

/// The forward pass.
pub fn forward(conv: &Conv2d, input: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut output = vec![0.0_f64; conv.output_len()];
    if let Some(bias) = bias {
        for (index, value) in output.iter_mut().enumerate() {
            *value = f64::from(bias[index % conv.out_channels]);
        }
    }
    for_each_product(conv, |i, w, o| {
        output[o] += f64::from(input[i]) * f64::from(weight[w]);
    });
    rounded(output)
}

/// Gradient of the input.
pub fn backward_data(conv: &Conv2d, grad_output: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut grad_input = vec![0.0_f64; conv.input_len()];
    for_each_product(conv, |i, w, o| {
        grad_input[i] += f64::from(grad_output[o]) * f64::from(weight[w]);
    });
    rounded(grad_input)
}

/// Gradients of weight and bias.
pub fn backward_weight(conv: &Conv2d, input: &[f32], grad_output: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut grad_weight = vec![0.0_f64; conv.weight_len()];
    for_each_product(conv, |i, w, o| {
        grad_weight[w] += f64::from(grad_output[o]) * f64::from(input[i]);
    });
    let mut grad_bias = vec![0.0_f64; conv.out_channels];
    for (index, &g) in grad_output.iter().enumerate() {
        grad_bias[index % conv.out_channels] += f64::from(g);
    }
    (rounded(grad_weight), rounded(grad_bias))
}

/// Whether `max|a - b| <= tolerance * max|b|`.
#[cfg(test)]
pub(crate) fn close(got: &[f32], expected: &[f32], tolerance: f32) -> bool {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    // `<=` is false for NaN, which `max` would drop.
    got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance * scale)
}

/// Reproducible values in [-1, 1).
#[cfg(test)]
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Geometries around every edge: one pixel, one channel, ragged strides, asymmetric padding,
/// padding wider than the kernel, dilation, groups, depthwise, more than one block of pixels, and
/// more than one task of channels.
#[cfg(test)]
pub(super) fn cases() -> Vec<Conv2d> {
    use super::geometry::Padding;
    type Quad = (usize, usize, usize, usize);
    type Pair = (usize, usize);
    let sym = Padding::symmetric;
    let asymmetric = Padding { top: 0, bottom: 2, left: 1, right: 3 };
    let table: &[(Quad, Quad, Pair, Padding, Pair, usize)] = &[
        ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), sym(0, 0), (1, 1), 1),
        ((0, 4, 4, 2), (3, 3, 2, 3), (1, 1), sym(1, 1), (1, 1), 1),
        ((2, 5, 7, 3), (3, 3, 3, 4), (1, 1), sym(1, 1), (1, 1), 1),
        ((1, 9, 8, 3), (7, 7, 3, 5), (2, 2), sym(3, 3), (1, 1), 1),
        ((2, 8, 9, 2), (3, 2, 2, 3), (2, 3), asymmetric, (1, 1), 1),
        ((1, 4, 4, 2), (2, 2, 2, 2), (1, 1), sym(5, 4), (1, 1), 1),
        ((1, 9, 11, 3), (3, 3, 3, 2), (1, 2), sym(2, 2), (2, 3), 1),
        ((1, 6, 6, 6), (3, 3, 3, 4), (1, 1), sym(1, 1), (1, 1), 2),
        ((1, 7, 6, 5), (3, 3, 1, 10), (2, 1), sym(1, 1), (1, 1), 5),
        ((2, 7, 6, 5), (3, 3, 1, 5), (1, 1), sym(1, 1), (1, 1), 5),
        ((2, 9, 8, 33), (3, 2, 1, 33), (2, 3), asymmetric, (1, 2), 33),
        ((1, 4, 5, 4), (2, 3, 1, 12), (3, 2), sym(5, 9), (2, 1), 4),
        ((1, 6, 5, 130), (1, 1, 130, 33), (1, 1), sym(0, 0), (1, 1), 1),
        ((2, 7, 5, 8), (1, 1, 4, 6), (2, 2), sym(0, 0), (1, 1), 2),
        ((3, 24, 25, 4), (3, 3, 4, 8), (1, 1), sym(1, 1), (1, 1), 1),
        ((1, 5, 3, 4), (5, 3, 4, 7), (1, 1), sym(0, 0), (1, 1), 1),
        ((1, 5, 5, 2), (2, 2, 2, 3), (4, 4), sym(0, 0), (1, 1), 1),
        // More weights than the backward pass keeps a copy of per part.
        ((1, 6, 5, 130), (1, 1, 130, 133), (1, 1), sym(0, 0), (1, 1), 1),
        ((2, 5, 4, 70), (3, 3, 70, 40), (1, 2), sym(1, 1), (1, 1), 1),
        ((1, 5, 4, 140), (3, 3, 70, 40), (1, 1), sym(1, 1), (1, 1), 2),
        ((3, 20, 20, 65), (3, 2, 65, 48), (1, 1), sym(1, 0), (1, 1), 1),
        // Strides beyond the image, and no input channels.
        ((2, 3, 5, 2), (2, 3, 2, 3), (4, 1_000_000_007), sym(1, 0), (1, 1), 1),
        ((2, 3, 5, 0), (2, 3, 0, 3), (1, 1), sym(1, 0), (1, 1), 1),
    ];
    table
        .iter()
        .map(|&(x, w, s, p, d, g)| Conv2d::new(x, w, s, p, d, g).expect("legal test geometry"))
        .collect()
}

/// Geometries beyond those of `cases`: ragged tiles and channels around the vectors' lengths,
/// several chunks, several blocks of output channels.
#[cfg(test)]
pub(super) fn winograd_cases() -> Vec<Conv2d> {
    use super::geometry::Padding;
    let conv = |batch, (h, w), c, o, padding| {
        let sizes = ((batch, h, w, c), (3, 3, c, o));
        Conv2d::new(sizes.0, sizes.1, (1, 1), padding, (1, 1), 1).unwrap()
    };
    let one = Padding::symmetric(1, 1);
    let ragged = Padding { top: 2, bottom: 0, left: 0, right: 3 };
    let mut cases = vec![
        conv(1, (1, 1), 1, 1, one),
        conv(2, (13, 12), 17, 33, one),
        conv(1, (6, 7), 16, 32, Padding::default()),
        conv(3, (9, 8), 5, 31, ragged),
        conv(1, (3, 30), 4, 64, one),
        conv(1, (40, 41), 160, 70, one),
        conv(5, (20, 21), 70, 96, one),
    ];
    for channels in [3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33] {
        cases.push(conv(1, (7, 6), channels, 64 - channels, one));
    }
    cases
}
