//! Training plans: values beside those of plans for evaluation, and gradients beside differences.

use std::sync::Arc;

use super::super::*;
use super::net::Net;
use crate::conv::Precision;
use crate::conv::reference::{close, values};

/// Everything of a pass both ways, for an output weighed by `weights`.
struct Outcome {
    output: Vec<f32>,
    grad_input: Vec<f32>,
    grad_constants: Vec<Vec<f32>>,
}

fn train(net: &Net, output: Value, batch: usize, input: &[f32], weights: &[f32]) -> Outcome {
    let constants: Vec<&[f32]> = net.constants.iter().map(Vec::as_slice).collect();
    let trained = vec![true; constants.len()];
    let wanted = (&trained[..], &[true][..]);
    let packed = PackedWeights::new();
    let plan = net
        .graph
        .compile_training(&[output], wanted, &constants, Precision::Direct, &packed)
        .unwrap();
    let plan = Arc::new(plan);
    let mut result = vec![f32::NAN; weights.len()];
    let pass = plan.forward(batch, &[input], &constants, &[], &mut [&mut result]).unwrap();
    let mut grad_input = vec![f32::NAN; input.len()];
    let mut sums: Vec<Vec<f32>> = constants.iter().map(|c| vec![0.0; c.len()]).collect();
    let mut sinks: Vec<Option<&mut [f32]>> = sums.iter_mut().map(|s| Some(&mut s[..])).collect();
    let grads = [Some(weights)];
    let into = &mut [Some(&mut grad_input[..])];
    pass.backward(&[input], &constants, &grads, into, &mut sinks).unwrap();
    Outcome { output: result, grad_input, grad_constants: sums }
}

/// A network with a residual, a value read three times, pooling and a linear layer.
fn network() -> (Net, Value) {
    let (mut net, x) = Net::image(3, 8, 7);
    let a = net.conv(x, 6, 3, 1);
    let a = net.relu(a);
    let b = net.conv(a, 6, 3, 1);
    let sum = net.add(b, a);
    let c = net.relu(sum);
    let wide = net.concat(&[c, a]);
    let d = net.conv(wide, 5, 3, 2);
    let small = net.mean(d, 2);
    let flat = net.flatten(small);
    let out = net.linear(flat, 4);
    (net, out)
}

#[test]
fn values_are_those_of_a_plan_for_evaluation() {
    let (net, out) = network();
    for batch in [1, 2, 5] {
        let input = &net.inputs(batch)[0];
        let plan = net.compile(&[out], &PackedWeights::new());
        let expected = plan.run(batch, &[input]).unwrap();
        let got = train(&net, out, batch, input, &vec![1.0; expected[0].len()]);
        assert!(close(&got.output, &expected[0], 1e-5));
    }
}

#[test]
fn gradients_are_what_differences_say() {
    let (mut net, out) = network();
    let batch = 2;
    let input = net.inputs(batch)[0].clone();
    let weights = values(batch * 4, 77);
    let loss = |net: &Net, input: &[f32]| -> f64 {
        let output = train(net, out, batch, input, &weights).output;
        output.iter().zip(&weights).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum()
    };
    let outcome = train(&net, out, batch, &input, &weights);
    let step = 1e-3;
    // Along one direction at a time: the whole input, then the whole of each constant.
    let along = values(input.len(), 5);
    let moved = |sign: f32| -> Vec<f32> {
        input.iter().zip(&along).map(|(x, d)| x + sign * step * d).collect()
    };
    let difference = (loss(&net, &moved(1.0)) - loss(&net, &moved(-1.0))) / f64::from(2.0 * step);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let expected = dot(&outcome.grad_input, &along);
    assert!((difference - expected).abs() < 2e-2 * expected.abs().max(1.0), "input");
    for index in 0..net.constants.len() {
        let before = net.constants[index].clone();
        let along = values(before.len(), 6 + index as u64);
        let mut at = |sign: f32| {
            let moved = before.iter().zip(&along).map(|(w, d)| w + sign * step * d);
            net.constants[index] = moved.collect();
            loss(&net, &input)
        };
        let difference = (at(1.0) - at(-1.0)) / f64::from(2.0 * step);
        net.constants[index] = before;
        let expected = dot(&outcome.grad_constants[index], &along);
        let close = (difference - expected).abs() < 2e-2 * expected.abs().max(1.0);
        assert!(close, "constant {index}: {difference} and {expected}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (net, out) = network();
    let input = &net.inputs(3)[0];
    let weights = values(12, 3);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&net, out, 3, input, &weights))
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        let many = run(threads);
        assert_eq!(one.output, many.output);
        assert_eq!(one.grad_input, many.grad_input);
        assert_eq!(one.grad_constants, many.grad_constants);
    }
}

#[test]
fn a_graph_in_training_is_no_plan_for_evaluation() {
    let (mut net, x) = Net::image(3, 4, 4);
    let (number, eps) = (0, 1e-5);
    let activation = crate::conv::Activation::Identity;
    let norm = TrainNorm {
        number,
        weight: None,
        bias: None,
        running: None,
        eps,
        residual: false,
        activation,
    };
    let y = net.graph.train_norm(x, norm, "bn").unwrap();
    let options = super::net::OPTIONS;
    let error = net.graph.compile(&[y], &[], options, &PackedWeights::new()).unwrap_err();
    assert!(error.to_string().contains("bn in training"), "{error}");
}
