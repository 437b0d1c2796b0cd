//! Which values get gradients, what is kept for the way back, and who shares buffers.

use super::super::ir::{Graph, Op, Value};
use crate::conv::Activation;
use crate::layers::activation::Function;

/// Where the rows of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// In the caller's input of this number.
    Input(usize),
    /// In this buffer of the arena.
    Buffer(usize),
}

/// The order of a run and the memory it needs.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Values in the order in which they are computed, without the inputs.
    pub order: Vec<Value>,
    /// Of each value, whether its gradient is wanted.
    pub wanted: Vec<bool>,
    /// Where each value is; `None` for values that do not exist any more.
    pub homes: Vec<Option<Home>>,
    /// Of each step, which inputs the way back reads, and whether it reads the output.
    pub kept_inputs: Vec<Vec<bool>>,
    pub kept_output: Vec<bool>,
    /// The buffer of each value's gradient.
    pub gradients: Vec<Option<usize>>,
    /// The buffer in which each step computes what it has to add to the gradient of an input.
    pub extra: Vec<Vec<Option<usize>>>,
    /// Floats an image of each buffer.
    pub buffers: Vec<usize>,
}

/// Something that needs a buffer from one time to another.
struct Tenant {
    floats: usize,
    from: usize,
    to: usize,
    role: Role,
}

#[derive(Clone, Copy)]
enum Role {
    Value(Value),
    Gradient(Value),
    Extra(usize, usize),
}

impl Schedule {
    /// Plans the training of the constants in `trained` (by number) and of the graph's inputs in
    /// `inputs` (by number).
    pub(super) fn new(graph: &Graph, outputs: &[Value], trained: &[bool], inputs: &[bool]) -> Self {
        let nodes = &graph.nodes;
        let is_step = |value: &Value| !matches!(nodes[*value].op, Op::Input(_) | Op::Gone);
        let order: Vec<Value> = (0..nodes.len()).filter(is_step).collect();
        let wanted = wanted(graph, trained, inputs);
        let steps = order.len();
        // The step that goes back through step `index`.
        let back = |index: usize| 2 * steps - 1 - index;

        let mut tenants = Vec::new();
        let mut step_of = vec![None; nodes.len()];
        for (index, &value) in order.iter().enumerate() {
            step_of[value] = Some(index);
        }
        let mut last_use: Vec<usize> = step_of.iter().map(|step| step.unwrap_or(0)).collect();
        let (mut kept_inputs, mut kept_output) = (Vec::new(), Vec::new());
        for (index, &value) in order.iter().enumerate() {
            let needs = |position| needs_input(graph, value, position, trained, &wanted);
            let kept = |position| wanted[value] && needs(position);
            let kept: Vec<bool> = (0..nodes[value].inputs.len()).map(kept).collect();
            for (&input, &kept) in nodes[value].inputs.iter().zip(&kept) {
                let time = if kept { back(index) } else { index };
                last_use[input] = last_use[input].max(time);
            }
            kept_inputs.push(kept);
            kept_output.push(wanted[value] && needs_output(&nodes[value].op));
            if kept_output[index] {
                last_use[value] = last_use[value].max(back(index));
            }
        }
        for (index, &value) in order.iter().enumerate() {
            let (floats, to) = (nodes[value].shape.len(), last_use[value]);
            tenants.push(Tenant { floats, from: index, to, role: Role::Value(value) });
        }

        // Gradients, in the order in which they arise.
        let mut started = vec![None; nodes.len()];
        // The value whose gradient's buffer a gradient takes over.
        let mut taken_from: Vec<Option<Value>> = vec![None; nodes.len()];
        for &output in outputs {
            if wanted[output] {
                started[output] = Some(steps);
            }
        }
        for index in (0..steps).rev().filter(|&index| wanted[order[index]]) {
            let value = order[index];
            for (position, &input) in nodes[value].inputs.iter().enumerate() {
                if wanted[input] && started[input].is_none() {
                    started[input] = Some(back(index));
                    if in_place(&nodes[value].op) == Some(position) {
                        taken_from[input] = Some(value);
                    }
                } else if wanted[input] {
                    let (floats, time) = (nodes[input].shape.len(), back(index));
                    let role = Role::Extra(index, position);
                    tenants.push(Tenant { floats, from: time, to: time, role });
                }
            }
        }
        // A gradient lives until the way back through its value; that of an input, until the end.
        let until = |value: Value| step_of[value].map_or(2 * steps, back);
        let mut ends: Vec<usize> = (0..nodes.len()).map(until).collect();
        // A value is taken over by an earlier one, whose chain is then known.
        for value in 0..nodes.len() {
            if let Some(owner) = taken_from[value] {
                ends[owner] = ends[owner].max(ends[value]);
            }
        }
        for (value, from) in started.iter().enumerate() {
            if let (Some(from), None) = (*from, taken_from[value]) {
                let (floats, to) = (nodes[value].shape.len(), ends[value]);
                tenants.push(Tenant { floats, from, to, role: Role::Gradient(value) });
            }
        }
        // An output that nothing wants a gradient of has none; neither has a value off every path.
        let wanted = (0..nodes.len()).map(|value| wanted[value] && started[value].is_some());
        let wanted = wanted.collect();

        let (places, buffers) = share(&tenants);
        let mut homes = vec![None; nodes.len()];
        for (number, &value) in graph.inputs.iter().enumerate() {
            homes[value] = Some(Home::Input(number));
        }
        let mut gradients = vec![None; nodes.len()];
        let inputs_of = |&value: &Value| vec![None; nodes[value].inputs.len()];
        let mut extra: Vec<Vec<Option<usize>>> = order.iter().map(inputs_of).collect();
        for (tenant, buffer) in tenants.iter().zip(places) {
            match tenant.role {
                Role::Value(value) => homes[value] = Some(Home::Buffer(buffer)),
                Role::Gradient(value) => gradients[value] = Some(buffer),
                Role::Extra(index, position) => extra[index][position] = Some(buffer),
            }
        }
        for value in (0..nodes.len()).rev() {
            if let Some(owner) = taken_from[value] {
                gradients[value] = gradients[owner];
            }
        }
        Schedule { order, wanted, homes, kept_inputs, kept_output, gradients, extra, buffers }
    }
}

/// Of each value, whether something upstream of it, or it itself as an input, wants a gradient.
fn wanted(graph: &Graph, trained: &[bool], inputs: &[bool]) -> Vec<bool> {
    let mut wanted = vec![false; graph.nodes.len()];
    for (value, node) in graph.nodes.iter().enumerate() {
        wanted[value] = match node.op {
            Op::Input(number) => inputs[number],
            Op::Gone => false,
            _ => trains(&node.op, trained) || node.inputs.iter().any(|&input| wanted[input]),
        };
    }
    wanted
}

/// Whether an operation has trained constants.
pub(super) fn trains(op: &Op, trained: &[bool]) -> bool {
    learning(op).into_iter().flatten().any(|constant| trained[constant])
}

/// The constants of an operation that can be trained.
pub(super) fn learning(op: &Op) -> [Option<usize>; 2] {
    match op {
        Op::Layer(layer) => [Some(layer.weight), layer.bias],
        Op::TrainNorm(norm) => [norm.weight, norm.bias],
        _ => [None, None],
    }
}

/// The input whose gradient the way back through a step computes in the place of its value's.
fn in_place(op: &Op) -> Option<usize> {
    match op {
        Op::TrainNorm(_) | Op::BatchNorm(..) | Op::Map(_) | Op::Add(_) => Some(0),
        Op::Copy | Op::Dropout | Op::RandomDrop(_) => Some(0),
        // Behind the activation, what is added passes its gradient on as it is.
        Op::Layer(layer) if layer.residual => Some(1),
        _ => None,
    }
}

/// Whether the way back through a step reads its input at `position`.
fn needs_input(
    graph: &Graph,
    value: Value,
    position: usize,
    trained: &[bool],
    wanted: &[bool],
) -> bool {
    match &graph.nodes[value].op {
        Op::Layer(layer) => position == 0 && trained[layer.weight],
        Op::TrainNorm(norm) => {
            position == 0 && (norm.running.is_none() || norm.weight.is_some_and(|w| trained[w]))
        }
        Op::ResponseNorm(_) => wanted[graph.nodes[value].inputs[0]],
        _ => false,
    }
}

/// Whether the way back through a step reads its output.
fn needs_output(op: &Op) -> bool {
    match op {
        Op::Layer(layer) => layer.activation != Activation::Identity,
        Op::TrainNorm(norm) => norm.activation != Activation::Identity,
        Op::BatchNorm(_, activation) | Op::Add(activation) => *activation != Activation::Identity,
        Op::Map(Function::Scale(..)) | Op::Map(Function::Clamp(Activation::Identity)) => false,
        Op::Map(_) | Op::Softmax { .. } => true,
        _ => false,
    }
}

/// A buffer for each tenant, and the floats of each buffer: the best fitting one that is free.
fn share(tenants: &[Tenant]) -> (Vec<usize>, Vec<usize>) {
    let mut arrivals: Vec<usize> = (0..tenants.len()).collect();
    arrivals.sort_by_key(|&index| (tenants[index].from, usize::MAX - tenants[index].floats));
    let mut places = vec![0; tenants.len()];
    let (mut floats, mut busy_until): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for index in arrivals {
        let tenant = &tenants[index];
        let free = |&buffer: &usize| busy_until[buffer] < tenant.from;
        let candidates: Vec<usize> = (0..floats.len()).filter(free).collect();
        let fitting = candidates.iter().filter(|&&buffer| floats[buffer] >= tenant.floats);
        let smallest = fitting.min_by_key(|&&buffer| floats[buffer]);
        let largest = candidates.iter().max_by_key(|&&buffer| floats[buffer]);
        let buffer = smallest.or(largest).copied().unwrap_or_else(|| {
            floats.push(0);
            busy_until.push(0);
            floats.len() - 1
        });
        floats[buffer] = floats[buffer].max(tenant.floats);
        busy_until[buffer] = tenant.to;
        places[index] = buffer;
    }
    (places, floats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(floats: usize, from: usize, to: usize) -> Tenant {
        Tenant { floats, from, to, role: Role::Value(0) }
    }

    #[test]
    fn what_lives_at_one_time_never_shares_a_buffer() {
        let lives = [(0, 9), (1, 3), (3, 4), (4, 7), (5, 5), (8, 9), (9, 9), (0, 0)];
        let tenants: Vec<Tenant> = lives
            .iter()
            .enumerate()
            .map(|(i, &(from, to))| tenant(10 + 7 * (i % 3), from, to))
            .collect();
        let (places, floats) = share(&tenants);
        for (i, a) in tenants.iter().enumerate() {
            assert!(floats[places[i]] >= a.floats);
            for (j, b) in tenants.iter().enumerate().skip(i + 1) {
                let meet = a.from <= b.to && b.from <= a.to;
                assert!(!(meet && places[i] == places[j]), "{i} and {j}");
            }
        }
    }

    #[test]
    fn a_chain_that_is_left_behind_takes_two_buffers() {
        let tenants: Vec<Tenant> = (0..20).map(|step| tenant(8, step, step + 1)).collect();
        let (_, floats) = share(&tenants);
        assert_eq!(floats, [8, 8]);
    }
}
