//! From a rewritten graph to a plan: values get their places, operations become steps.

use super::executable::Plan;
use super::ir::{Graph, Node, Op, Shape, Value};
use super::memory::{self, Access, Home, MemoryPlan};
use super::packed::{PackedWeights, norm_of};
use super::passes;
use super::placement::{Placement, first_columns};
use super::steps::{Kernel, Step, StepInfo, View};
use crate::conv::Options;
use crate::layers::batch_norm::Affine;
use crate::{Error, Result};

/// What becomes a step.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// The operation of this value.
    Node(Value),
    /// Copying an input of a concatenation to its columns, from this one on.
    Into { concat: Value, input: Value, first: usize },
}

impl Graph {
    /// Makes the plan that computes `outputs`. `constants` are the arrays that
    /// [`constant`](Graph::constant) announced; nothing refers to them afterwards.
    pub fn compile(
        &self,
        outputs: &[Value],
        constants: &[&[f32]],
        options: Options,
        packed: &PackedWeights,
    ) -> Result<Plan> {
        self.check(outputs, constants)?;
        let mut graph = self.clone();
        let mut outputs = outputs.to_vec();
        let out_shapes: Vec<Shape> = outputs.iter().map(|&o| graph.nodes[o].shape).collect();
        passes::run(&mut graph, &mut outputs);
        graph.give_outputs_rows(&mut outputs);
        Lowering::new(&graph, &outputs).plan(constants, options, packed, out_shapes)
    }

    fn check(&self, outputs: &[Value], constants: &[&[f32]]) -> Result<()> {
        if let Some(node) = self.nodes.iter().find(|node| node.op.is_training()) {
            let (expected, got) =
                ("operations of evaluation", format!("{} in training", node.name));
            return Err(Error::value("outputs", expected, got));
        }
        self.check_outputs(outputs, constants)
    }

    /// Whether outputs and constants belong to this graph.
    pub(super) fn check_outputs(&self, outputs: &[Value], constants: &[&[f32]]) -> Result<()> {
        outputs.iter().try_for_each(|&output| self.shape(output).map(drop))?;
        self.check_constants(constants)
    }

    /// Whether constants have the lengths that were announced.
    pub(super) fn check_constants(&self, constants: &[&[f32]]) -> Result<()> {
        if constants.iter().map(|c| c.len()).eq(self.constants.iter().copied()) {
            return Ok(());
        }
        let got: Vec<usize> = constants.iter().map(|c| c.len()).collect();
        let expected = format!("arrays of {:?} elements", self.constants);
        Err(Error::shape("constants", expected, format!("{got:?}")))
    }

    /// Makes each output a value that a step can write an array of its own for: what is an input, a
    /// part of something wider or the same as another output gets copied.
    fn give_outputs_rows(&mut self, outputs: &mut [Value]) {
        let mut taken: Vec<Value> = Vec::new();
        for output in outputs {
            let (root, _) = Placement::views(self).find(*output);
            let same_rows =
                self.nodes[root].shape.channels() == self.nodes[*output].shape.channels();
            let is_input = matches!(self.nodes[root].op, Op::Input(_));
            if is_input || !same_rows || taken.contains(&root) {
                let (shape, name) = (self.nodes[*output].shape, self.nodes[*output].name.clone());
                *output = self.push(Op::Copy, vec![*output], shape, &name);
                taken.push(*output);
            } else {
                taken.push(root);
            }
        }
    }
}

struct Lowering<'a> {
    graph: &'a Graph,
    placement: Placement,
    work: Vec<Work>,
    memory: MemoryPlan,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph, outputs: &[Value]) -> Self {
        let views = Placement::views(graph);
        let pinned: Vec<Value> = outputs.iter().map(|&output| views.find(output).0).collect();
        let placement = Placement::new(graph, &pinned);
        let work = work(graph, &placement);
        let root = |value: Value| placement.find(value).0;
        let accesses: Vec<Access> = work
            .iter()
            .map(|&work| match work {
                Work::Node(value) => Access {
                    reads: graph.nodes[value].inputs.iter().map(|&input| root(input)).collect(),
                    writes: root(value),
                },
                Work::Into { concat, input, .. } => {
                    Access { reads: vec![root(input)], writes: root(concat) }
                }
            })
            .collect();
        let mut homes = vec![None; graph.nodes.len()];
        for (number, &value) in graph.inputs.iter().enumerate() {
            homes[value] = Some(Home::Input(number));
        }
        for (number, &value) in pinned.iter().enumerate() {
            homes[value] = Some(Home::Output(number));
        }
        let floats: Vec<usize> = graph.nodes.iter().map(|node| node.shape.len()).collect();
        let memory = memory::plan(&accesses, &floats, homes);
        Lowering { graph, placement, work, memory }
    }

    fn plan(
        self,
        constants: &[&[f32]],
        options: Options,
        packed: &PackedWeights,
        outputs: Vec<Shape>,
    ) -> Result<Plan> {
        let steps: Result<Vec<Step>> =
            self.work.iter().map(|&work| self.step(work, constants, options, packed)).collect();
        let inputs = self.graph.inputs.iter().map(|&input| self.graph.nodes[input].shape).collect();
        let MemoryPlan { buffers, segments, .. } = self.memory;
        Ok(Plan::new(steps?, inputs, outputs, buffers, segments))
    }

    fn step(
        &self,
        work: Work,
        constants: &[&[f32]],
        options: Options,
        packed: &PackedWeights,
    ) -> Result<Step> {
        let nodes = &self.graph.nodes;
        let (kernel, inputs, output, value) = match work {
            Work::Node(value) => {
                let node = &nodes[value];
                let kernel = kernel(node, constants, options, packed)?;
                (kernel, &node.inputs[..], self.view(value), value)
            }
            Work::Into { concat, ref input, first } => {
                let channels = nodes[*input].shape.channels();
                let whole = self.view(concat);
                let output = View { channels, column: whole.column + first, ..whole };
                (Kernel::Copy, std::slice::from_ref(input), output, concat)
            }
        };
        let (node, in_shape) = (&nodes[value], nodes[inputs[0]].shape);
        let mut fused = node.fused.clone();
        let (op, out_shape) = match work {
            Work::Node(_) => (node.op.name(), node.shape),
            Work::Into { .. } => ("copy", in_shape),
        };
        if matches!(work, Work::Node(_)) && self.placement.is_view(value) {
            fused.push("concat");
        }
        let info = StepInfo {
            name: node.name.clone(),
            op,
            algorithm: kernel.algorithm(),
            fused,
            in_shape,
            out_shape,
            macs: kernel.macs(),
            weight_bytes: kernel.weight_bytes(),
            output_bytes: size_of::<f32>() * out_shape.len(),
        };
        let second = inputs.get(1).map(|&input| self.view(input));
        Ok(Step { kernel, input: self.view(inputs[0]), second, output, info })
    }

    fn view(&self, value: Value) -> View {
        let (root, column) = self.placement.find(value);
        let shape = self.graph.nodes[value].shape;
        let home = self.memory.homes[root].expect("a value that a step touches has a home");
        View {
            home,
            whole: home.is_whole(&self.memory.buffers),
            pixels: shape.pixels(),
            channels: shape.channels(),
            column,
            stride: self.graph.nodes[root].shape.channels(),
        }
    }
}

/// The operations that become steps, in order.
fn work(graph: &Graph, placement: &Placement) -> Vec<Work> {
    let mut work = Vec::new();
    for (value, node) in graph.nodes.iter().enumerate() {
        match node.op {
            Op::Input(_) | Op::Gone | Op::Channels(_) => {}
            Op::Flatten if placement.is_view(value) => {}
            Op::Concat => {
                for (&input, first) in node.inputs.iter().zip(first_columns(graph, value)) {
                    if !placement.is_in_place(input, value, first) {
                        work.push(Work::Into { concat: value, input, first });
                    }
                }
            }
            _ => work.push(Work::Node(value)),
        }
    }
    work
}

fn kernel(
    node: &Node,
    constants: &[&[f32]],
    options: Options,
    packed: &PackedWeights,
) -> Result<Kernel> {
    Ok(match &node.op {
        Op::Layer(layer) => {
            let prepared = packed.prepare(&node.name, layer, constants, options)?;
            Kernel::Layer(prepared, layer.activation)
        }
        Op::BatchNorm(norm, activation) => {
            Kernel::Affine(Affine::new(&norm_of(norm, constants)?), *activation)
        }
        Op::Map(function) => Kernel::Map(*function),
        Op::Add(activation) => Kernel::Add(*activation),
        Op::MaxPool(pool) => Kernel::MaxPool(pool.clone()),
        Op::AvgPool(pool, divisor) => Kernel::AvgPool(pool.clone(), *divisor),
        Op::Gather(gather, _) => Kernel::Gather(gather.clone()),
        Op::Bilinear(resize) => Kernel::Bilinear(resize.clone()),
        Op::ResponseNorm(norm) => Kernel::ResponseNorm(*norm),
        Op::Flatten => Kernel::Flatten,
        Op::Softmax { log } => Kernel::Softmax { log: *log },
        Op::Copy | Op::Dropout => Kernel::Copy,
        Op::Input(_) | Op::Channels(_) | Op::Concat | Op::Gone => {
            unreachable!("these are places of values, not steps")
        }
        Op::TrainNorm(_) | Op::RandomDrop(_) => unreachable!("refused by check"),
    })
}
