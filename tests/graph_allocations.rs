//! In the steady state a plan allocates its outputs and nothing that grows with the network.
//!
//! One test, alone in its process: it counts what every thread asks the allocator for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use oxidet::conv::{Activation, Options, Padding, Precision, Storage};
use oxidet::graph::{ConvArgs, Graph, Norm, PackedWeights, Plan, Shape, Value};
use oxidet::layers::activation::Function;
use oxidet::layers::gather::Border;
use oxidet::layers::response_norm::ResponseNorm;
use oxidet::layers::windows::Sliding;
use oxidet::parallel;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// `blocks` blocks of every kind of step, over 32 x 32 pixels.
fn network(blocks: usize) -> Plan {
    let mut graph = Graph::new();
    let mut constants: Vec<Vec<f32>> = Vec::new();
    let mut array = |graph: &mut Graph, len: usize| {
        constants.push(vec![0.01; len]);
        graph.constant(len)
    };
    let args =
        ConvArgs { stride: (1, 1), padding: Padding::symmetric(1, 1), dilation: (1, 1), groups: 1 };
    let window = Sliding {
        kernel: (3, 3),
        stride: (1, 1),
        padding: (1, 1),
        dilation: (1, 1),
        ceil_mode: false,
    };
    let mut conv = |graph: &mut Graph, x: Value, channels: usize| {
        let weight = array(graph, 9 * 48 * channels);
        let shape = (3, 3, 48, channels);
        graph.conv2d(x, weight, shape, None, args, vec![], "conv").unwrap()
    };
    let image = Shape::Image { channels: 48, height: 32, width: 32 };
    let mut x = graph.input(image).unwrap();
    for _ in 0..blocks {
        let y = conv(&mut graph, x, 48);
        let y = graph.add(y, x, "add").unwrap();
        let y = graph.map(y, Function::Clamp(Activation::Relu), "relu").unwrap();
        let y = graph.map(y, Function::Tanh, "tanh").unwrap();
        let narrow = conv(&mut graph, y, 16);
        let pooled = graph.max_pool2d(y, window, "pool").unwrap();
        let part = graph.channels(pooled, 8, 32, "part").unwrap();
        let joined = graph.concat(&[part, narrow], "cat").unwrap();
        let softmax = graph.softmax(joined, false, "softmax").unwrap();
        let response = ResponseNorm::new(5, 1.0, 0.75, 2.0).unwrap();
        let normed = graph.response_norm(softmax, response, "lrn").unwrap();
        let wide = Border::Constant(1.0);
        let padded = graph.pad(normed, Padding::symmetric(1, 2), (0, 0), wide, "pad").unwrap();
        let none = (None, None);
        let small = graph.nearest2d(padded, (16, 16), none, false, "nearest").unwrap();
        x = graph.bilinear2d(small, (32, 32), none, false, "bilinear").unwrap();
    }
    let zero = array(&mut graph, 48);
    let one = array(&mut graph, 48);
    let norm = Norm {
        mean: zero,
        var: one,
        weight: None,
        bias: None,
        eps: 1e-5,
        key: vec![],
        affine: false,
    };
    let x = graph.batch_norm(x, norm, "bn").unwrap();
    let mean = graph.adaptive_avg_pool2d(x, (2, 2), "mean").unwrap();
    let flat = graph.flatten(mean, "flatten").unwrap();
    let weight = array(&mut graph, 10 * 192);
    let scores = graph.linear(flat, weight, (10, 192), None, vec![], "linear").unwrap();
    let constants: Vec<&[f32]> = constants.iter().map(Vec::as_slice).collect();
    let options = Options { precision: Precision::Winograd, storage: Storage::F32 };
    graph.compile(&[scores, flat], &constants, options, &PackedWeights::new()).unwrap()
}

/// (allocations, bytes) of one run after two others.
fn steady(plan: &Plan, batch: usize) -> (usize, usize) {
    let input = vec![0.5; batch * 48 * 32 * 32];
    let mut outputs: Vec<_> =
        plan.output_lens(batch).unwrap().into_iter().map(|len| vec![0.0; len]).collect();
    let mut outputs: Vec<_> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let mut run = || plan.run_into(batch, &[&input], &mut outputs).unwrap();
    run();
    run();
    let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
    run();
    (ALLOCATIONS.load(Relaxed) - before.0, BYTES.load(Relaxed) - before.1)
}

#[test]
fn a_run_allocates_next_to_nothing() {
    parallel::set_num_threads(3).unwrap();
    parallel::install(|| {
        let (short, long) = (network(1), network(6));
        for batch in [1, 5] {
            // The long network is held to the bounds of the short one. How many threads come
            // differs from run to run: one may still be busy with the run before.
            for (name, plan) in [("short", &short), ("long", &long)] {
                let (count, bytes) = steady(plan, batch);
                println!("batch {batch}, {name}: {count} allocations, {bytes} bytes");
                // The crew, and a call for each thread that helps.
                assert!(count <= 1 + 2, "{name}: {count} allocations");
                assert!(bytes <= 512, "{name}: {bytes} bytes");
            }
        }
    })
    .unwrap();
}
