//! Running the steps of a training plan over an arena.
//!
//! A step takes the buffers it writes out of the arena while it borrows the others, so that no two
//! borrows meet. What a pass forward has kept stays in its arena until the way back, after which the
//! arena returns to the plan's pool.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::super::ir::{Graph, Op, Shape, Value};
use super::super::memory::AlignedBuffer;
use super::super::packed::PackedWeights;
use super::super::pool::Pool;
use super::backward::{self, Saved};
use super::forward::{self, Kept, Mask};
use super::layer::{Call, Sinks};
use super::rewrite;
use super::schedule::{Home, Schedule, learning, trains};
use crate::conv::{Options, Precision, PreparedConv};
use crate::layers::activation::add_assign;
use crate::memory::result_len;
use crate::{Error, Result, parallel};

/// A network ready to be trained on batches of any size.
#[derive(Debug)]
pub struct TrainingPlan {
    /// After all passes.
    graph: Graph,
    schedule: Schedule,
    inputs: Vec<Shape>,
    outputs: Vec<(Value, Shape)>,
    precision: Precision,
    /// Of each constant, whether several layers have it for their weights.
    shared: Vec<bool>,
    /// Of each step, the layer packed once, where nothing upstream of it is trained.
    frozen: Vec<Option<Arc<PreparedConv>>>,
    arenas: Pool<Arena>,
    /// Of each step, seconds forward and back in the last pass that went both ways.
    seconds: Mutex<Vec<(f64, f64)>>,
}

/// Memory of one pass.
#[derive(Debug, Default)]
struct Arena {
    buffers: Vec<AlignedBuffer>,
    /// Of each step.
    kept: Vec<Kept>,
    /// Of each step, seconds forward and back.
    seconds: Vec<(f64, f64)>,
}

/// A pass forward: what its way back needs.
#[derive(Debug)]
pub struct Pass {
    plan: Arc<TrainingPlan>,
    batch: usize,
    masks: Vec<Mask>,
    arena: Arena,
}

impl Graph {
    /// Makes the plan that computes `outputs` and gradients of the constants in `trained` and of the
    /// inputs in `inputs`, both by number. `constants` are the arrays that
    /// [`constant`](Graph::constant) announced; of those that are not trained, layers are packed now
    /// where nothing upstream is trained.
    pub fn compile_training(
        &self,
        outputs: &[Value],
        (trained, inputs): (&[bool], &[bool]),
        constants: &[&[f32]],
        precision: Precision,
        packed: &PackedWeights,
    ) -> Result<TrainingPlan> {
        self.check_outputs(outputs, constants)?;
        let mut graph = self.clone();
        let mut outputs = outputs.to_vec();
        let shapes: Vec<Shape> = outputs.iter().map(|&o| graph.nodes[o].shape).collect();
        rewrite::run(&mut graph, &mut outputs);
        let schedule = Schedule::new(&graph, &outputs, trained, inputs);
        let options = Options { precision, storage: crate::conv::Storage::F32 };
        let frozen = schedule.order.iter().map(|&value| match &graph.nodes[value].op {
            Op::Layer(layer)
                if !schedule.wanted[value] && !trains(&graph.nodes[value].op, trained) =>
            {
                packed.prepare(&graph.nodes[value].name, layer, constants, options).map(Some)
            }
            _ => Ok(None),
        });
        let frozen = frozen.collect::<Result<_>>()?;
        let inputs = graph.inputs.iter().map(|&input| graph.nodes[input].shape).collect();
        let outputs = outputs.into_iter().zip(shapes).collect();
        let (arenas, seconds) = (Pool::default(), Mutex::default());
        let mut shared = vec![0; graph.constants.len()];
        for node in &graph.nodes {
            if let Op::Layer(layer) = &node.op {
                shared[layer.weight] += 1;
            }
        }
        let shared = shared.into_iter().map(|layers| layers > 1).collect();
        Ok(TrainingPlan {
            graph,
            schedule,
            inputs,
            outputs,
            precision,
            shared,
            frozen,
            arenas,
            seconds,
        })
    }
}

impl TrainingPlan {
    /// Shapes of the inputs, without the batch.
    pub fn inputs(&self) -> &[Shape] {
        &self.inputs
    }

    /// Shapes of the outputs, without the batch.
    pub fn outputs(&self) -> impl Iterator<Item = Shape> {
        self.outputs.iter().map(|&(_, shape)| shape)
    }

    /// Bytes that a pass needs for a batch, both ways.
    pub fn memory(&self, batch: usize) -> usize {
        let floats: usize = self.schedule.buffers.iter().sum();
        floats.saturating_mul(batch).saturating_mul(size_of::<f32>())
    }

    fn call<'a>(&'a self, batch: usize, constants: &'a [&'a [f32]]) -> Call<'a> {
        Call { batch, constants, precision: self.precision, shared: &self.shared }
    }

    /// Of each step, seconds forward and back in the last pass that went both ways; empty before one.
    pub fn seconds(&self) -> Vec<(f64, f64)> {
        self.seconds.try_lock().map(|seconds| seconds.clone()).unwrap_or_default()
    }

    /// Bytes that wait for the next pass.
    pub fn memory_at_rest(&self) -> usize {
        let floats =
            |arena: &Arena| arena.buffers.iter().map(|b| b.as_slice().len()).sum::<usize>();
        let all = self.arenas.at_rest(|arenas| arenas.iter().map(floats).sum::<usize>());
        all.unwrap_or(0) * size_of::<f32>()
    }

    /// Takes over the memory that another plan has at rest, the largest buffer for the largest need.
    /// Passes of plans for other sizes of image then do not each keep memory of their own.
    pub fn take_memory(&self, other: &TrainingPlan) {
        let Some(Some(found)) = other.arenas.at_rest(Vec::pop) else { return };
        let mut buffers = found.buffers;
        buffers.sort_by_key(|buffer| Reverse(buffer.as_slice().len()));
        let mut needs: Vec<usize> = (0..self.schedule.buffers.len()).collect();
        needs.sort_by_key(|&index| Reverse(self.schedule.buffers[index]));
        let mut arena = self.new_arena();
        for (index, buffer) in needs.into_iter().zip(buffers) {
            arena.buffers[index] = buffer;
        }
        self.arenas.at_rest(|arenas| arenas.push(arena));
    }

    /// Of each output, the trained constants and the inputs (by number) that it depends on: whose
    /// gradients are more than zeros for want of anything to pass on.
    pub fn reached(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        let nodes = &self.graph.nodes;
        let of_output = |&(output, _): &(Value, Shape)| {
            let mut upstream = vec![false; nodes.len()];
            upstream[output] = true;
            let (mut constants, mut inputs) = (Vec::new(), Vec::new());
            for value in (0..nodes.len()).rev().filter(|&value| self.schedule.wanted[value]) {
                if upstream[value] {
                    nodes[value].inputs.iter().for_each(|&input| upstream[input] = true);
                    constants.extend(learning(&nodes[value].op).into_iter().flatten());
                    if let Op::Input(number) = nodes[value].op {
                        inputs.push(number);
                    }
                }
            }
            (constants, inputs)
        };
        self.outputs.iter().map(of_output).collect()
    }

    /// Names of the steps, in order, with what was drawn into them.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &'static str, &[&'static str])> {
        let nodes = self.schedule.order.iter().map(|&value| &self.graph.nodes[value]);
        nodes.map(|node| (node.name.as_str(), node.op.name(), &node.fused[..]))
    }

    /// Runs a batch forward: each input is (N, H, W, C) or (N, F), and so is each output, which is
    /// written whole. `masks` are those of the dropouts.
    pub fn forward(
        self: &Arc<Self>,
        batch: usize,
        inputs: &[&[f32]],
        constants: &[&[f32]],
        masks: &[Mask],
        outputs: &mut [&mut [f32]],
    ) -> Result<Pass> {
        self.check(batch, inputs, constants)?;
        let call = self.call(batch, constants);
        let mut arena = self.arena(batch)?;
        parallel::lead(|| {
            for index in 0..self.schedule.order.len() {
                let start = Instant::now();
                self.step_forward(index, call, inputs, masks, &mut arena)?;
                arena.seconds[index] = (start.elapsed().as_secs_f64(), 0.0);
                let value = self.schedule.order[index];
                for (number, _) in self.outputs.iter().enumerate().filter(|(_, o)| o.0 == value) {
                    backward::copy(self.value(value, batch, inputs, &arena), outputs[number]);
                }
            }
            for (number, &(value, _)) in self.outputs.iter().enumerate() {
                if matches!(self.graph.nodes[value].op, Op::Input(_)) {
                    backward::copy(self.value(value, batch, inputs, &arena), outputs[number]);
                }
            }
            Ok::<(), Error>(())
        })??;
        Ok(Pass { plan: Arc::clone(self), batch, masks: masks.to_vec(), arena })
    }

    fn step_forward(
        &self,
        index: usize,
        call: Call<'_>,
        inputs: &[&[f32]],
        masks: &[Mask],
        arena: &mut Arena,
    ) -> Result<()> {
        let value = self.schedule.order[index];
        let node = &self.graph.nodes[value];
        let Some(Home::Buffer(home)) = self.schedule.homes[value] else {
            unreachable!("the value of a step has a buffer")
        };
        let mut own = std::mem::take(&mut arena.buffers[home]);
        let mut kept = std::mem::take(&mut arena.kept[index]);
        let read: Vec<(&[f32], Shape)> = node
            .inputs
            .iter()
            .map(|&v| (self.value(v, call.batch, inputs, arena), self.graph.nodes[v].shape))
            .collect();
        let output = &mut own.as_mut_slice()[..node.shape.len() * call.batch];
        let frozen = self.frozen[index].as_ref();
        let done =
            forward::run(&node.op, frozen, call, &read, (output, node.shape), masks, &mut kept);
        arena.buffers[home] = own;
        arena.kept[index] = kept;
        done
    }

    /// The rows of a value, which exist at this time.
    fn value<'a>(
        &self,
        value: Value,
        batch: usize,
        inputs: &[&'a [f32]],
        arena: &'a Arena,
    ) -> &'a [f32] {
        match self.schedule.homes[value] {
            Some(Home::Input(number)) => inputs[number],
            Some(Home::Buffer(buffer)) => {
                &arena.buffers[buffer].as_slice()[..self.graph.nodes[value].shape.len() * batch]
            }
            None => unreachable!("a value that a step touches has a home"),
        }
    }

    fn check(&self, batch: usize, inputs: &[&[f32]], constants: &[&[f32]]) -> Result<()> {
        let expected = self.inputs.iter().map(|shape| shape.len().checked_mul(batch));
        if !expected.eq(inputs.iter().map(|input| Some(input.len()))) {
            let got: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
            let expected = format!("arrays for a batch of {batch}");
            return Err(Error::shape("inputs", expected, format!("{got:?} elements")));
        }
        self.graph.check_constants(constants)
    }

    /// An arena large enough for a batch: one that an earlier pass has given back, or a new one.
    fn arena(&self, batch: usize) -> Result<Arena> {
        let mut arena = self.arenas.take(|| self.new_arena());
        for (have, &floats) in arena.buffers.iter_mut().zip(&self.schedule.buffers) {
            have.reserve(result_len::<f32>("input", &[floats, batch])?);
        }
        Ok(arena)
    }

    fn new_arena(&self) -> Arena {
        Arena {
            buffers: self.schedule.buffers.iter().map(|_| AlignedBuffer::default()).collect(),
            kept: self.schedule.order.iter().map(|_| Kept::default()).collect(),
            seconds: vec![(0.0, 0.0); self.schedule.order.len()],
        }
    }
}

impl Pass {
    /// Mean and biased variance of each batch norm by the statistics of the batch, with its number.
    pub fn statistics(&self) -> impl Iterator<Item = (usize, &[f32], &[f32])> {
        let plan = &self.plan;
        let steps = plan.schedule.order.iter().zip(&self.arena.kept);
        steps.filter_map(|(&value, kept)| match &plan.graph.nodes[value].op {
            Op::TrainNorm(norm) if norm.running.is_none() => {
                Some((norm.number, &kept.statistics.0[..], &kept.statistics.1[..]))
            }
            _ => None,
        })
    }

    /// The same again, for a way back that is gone twice.
    pub fn copy(&self) -> Self {
        let mut arena = self.plan.arenas.take(Arena::default);
        arena.buffers = self.arena.buffers.iter().map(AlignedBuffer::copy).collect();
        arena.kept.clone_from(&self.arena.kept);
        arena.seconds.clone_from(&self.arena.seconds);
        Pass { plan: Arc::clone(&self.plan), batch: self.batch, masks: self.masks.clone(), arena }
    }

    /// Goes back: from the gradients of the outputs (`None` for zeros) to those of the inputs, which
    /// are written, and of the constants, to which is added. Inputs and constants are those of the
    /// pass forward.
    pub fn backward(
        mut self,
        inputs: &[&[f32]],
        constants: &[&[f32]],
        gradients: &[Option<&[f32]>],
        grad_inputs: &mut [Option<&mut [f32]>],
        sinks: &mut Sinks<'_>,
    ) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        plan.check(self.batch, inputs, constants)?;
        let call = plan.call(self.batch, constants);
        parallel::lead(|| {
            self.seed(gradients);
            for index in (0..plan.schedule.order.len()).rev() {
                if plan.schedule.wanted[plan.schedule.order[index]] {
                    let start = Instant::now();
                    self.step_back(index, call, inputs, sinks)?;
                    self.arena.seconds[index].1 = start.elapsed().as_secs_f64();
                }
            }
            for (&input, target) in plan.graph.inputs.iter().zip(grad_inputs) {
                if let (Some(buffer), Some(target)) = (plan.schedule.gradients[input], target) {
                    let len = target.len();
                    backward::copy(&self.arena.buffers[buffer].as_slice()[..len], target);
                }
            }
            Ok::<(), Error>(())
        })??;
        if let Ok(mut seconds) = plan.seconds.try_lock() {
            seconds.clone_from(&self.arena.seconds);
        }
        Ok(())
    }

    /// Writes the gradients of the outputs; those of one value add up.
    fn seed(&mut self, gradients: &[Option<&[f32]>]) {
        let plan = &self.plan;
        let mut seeded = Vec::new();
        for (&(value, shape), gradient) in plan.outputs.iter().zip(gradients) {
            let Some(buffer) = plan.schedule.gradients[value] else { continue };
            let to = &mut self.arena.buffers[buffer].as_mut_slice()[..shape.len() * self.batch];
            match (gradient, seeded.contains(&value)) {
                (Some(gradient), false) => backward::copy(gradient, to),
                (Some(gradient), true) => add_assign(to, gradient),
                (None, false) => to.fill(0.0),
                (None, true) => {}
            }
            seeded.push(value);
        }
    }

    fn step_back(
        &mut self,
        index: usize,
        call: Call<'_>,
        inputs: &[&[f32]],
        sinks: &mut Sinks<'_>,
    ) -> Result<()> {
        let (plan, batch) = (&self.plan, self.batch);
        let (graph, schedule) = (&plan.graph, &plan.schedule);
        let value = schedule.order[index];
        let node = &graph.nodes[value];
        let len = |value: Value| graph.nodes[value].shape.len() * batch;
        let Some(own) = schedule.gradients[value] else { return Ok(()) };
        let mut gradient = std::mem::take(&mut self.arena.buffers[own]);
        // Where the gradient of each input is computed.
        let places: Vec<Option<usize>> = node
            .inputs
            .iter()
            .zip(&schedule.extra[index])
            .map(|(&input, extra)| extra.or(schedule.gradients[input]))
            // In the gradient's own place there is nothing to take.
            .map(|place| place.filter(|&place| place != own))
            .collect();
        let take = |place: &Option<usize>| {
            place.map(|place| std::mem::take(&mut self.arena.buffers[place]))
        };
        let mut taken: Vec<Option<AlignedBuffer>> = places.iter().map(take).collect();
        let saved_inputs: Vec<(&[f32], Shape)> = node
            .inputs
            .iter()
            .zip(&schedule.kept_inputs[index])
            .map(|(&input, &kept)| {
                let data = if kept { plan.value(input, batch, inputs, &self.arena) } else { &[] };
                (data, graph.nodes[input].shape)
            })
            .collect();
        let output = match schedule.kept_output[index] {
            true => plan.value(value, batch, inputs, &self.arena),
            false => &[],
        };
        let saved = Saved {
            inputs: &saved_inputs,
            output,
            shape: node.shape,
            kept: &self.arena.kept[index],
            masks: &self.masks,
        };
        let mut targets: Vec<Option<&mut [f32]>> = taken
            .iter_mut()
            .zip(&node.inputs)
            .map(|(buffer, &input)| Some(&mut buffer.as_mut()?.as_mut_slice()[..len(input)]))
            .collect();
        let grad = &mut gradient.as_mut_slice()[..len(value)];
        let done = backward::run(&node.op, call, saved, grad, &mut targets, sinks);
        self.arena.buffers[own] = gradient;
        for (place, buffer) in places.iter().zip(taken) {
            if let (Some(place), Some(buffer)) = (place, buffer) {
                self.arena.buffers[*place] = buffer;
            }
        }
        done?;
        for (&input, extra) in node.inputs.iter().zip(&schedule.extra[index]) {
            if let (Some(extra), Some(sum)) = (*extra, schedule.gradients[input]) {
                let part = std::mem::take(&mut self.arena.buffers[extra]);
                let to = &mut self.arena.buffers[sum].as_mut_slice()[..len(input)];
                add_assign(to, &part.as_slice()[..len(input)]);
                self.arena.buffers[extra] = part;
            }
        }
        Ok(())
    }
}

impl Drop for Pass {
    /// Gives its memory back to the plan, whether or not anybody has gone back through it.
    fn drop(&mut self) {
        self.plan.arenas.give_back(std::mem::take(&mut self.arena));
    }
}
