//! A plan: steps in order, run over the memory planned for them.
//!
//! Everything a run writes besides its outputs lies in an arena: the buffers of the memory plan and
//! the scratch memory of the largest step. Every concurrent run takes an arena of its own from a
//! pool. A step takes its output buffer out of the arena while it borrows the others, so that no two
//! borrows meet.

use std::time::Instant;

use super::ir::Shape;
use super::memory::{AlignedBuffer, Buffer, Home, Segment};
use super::pool::Pool;
use super::steps::{Group, Step, StepInfo, View};
use crate::memory::result_len;
use crate::{Error, Result, parallel};

/// A network ready to run on batches of any size.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Step>,
    inputs: Vec<Shape>,
    outputs: Vec<Shape>,
    buffers: Vec<Buffer>,
    segments: Vec<Segment>,
    arenas: Pool<Arena>,
}

/// Bytes that a plan needs for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanMemory {
    /// Packed weights and other constants.
    pub weights: usize,
    /// Values between steps.
    pub arena: usize,
    /// Memory that steps need while they run.
    pub scratch: usize,
}

/// Memory of one run.
#[derive(Debug, Default)]
struct Arena {
    buffers: Vec<AlignedBuffer>,
    scratch: AlignedBuffer,
}

/// What the steps of one run read and write.
struct Memory<'a, 'b> {
    inputs: &'a [&'a [f32]],
    arena: Arena,
    outputs: &'a mut [&'b mut [f32]],
}

impl Plan {
    pub(super) fn new(
        steps: Vec<Step>,
        inputs: Vec<Shape>,
        outputs: Vec<Shape>,
        buffers: Vec<Buffer>,
        segments: Vec<Segment>,
    ) -> Self {
        Plan { steps, inputs, outputs, buffers, segments, arenas: Pool::default() }
    }

    /// Shapes of the inputs, without the batch.
    pub fn inputs(&self) -> &[Shape] {
        &self.inputs
    }

    /// Shapes of the outputs, without the batch.
    pub fn outputs(&self) -> &[Shape] {
        &self.outputs
    }

    /// What the plan does, step by step.
    pub fn steps(&self) -> impl Iterator<Item = &StepInfo> {
        self.steps.iter().map(|step| &step.info)
    }

    /// Runs the plan on a batch: each input is (N, H, W, C) or (N, F), and so is each output.
    pub fn run(&self, batch: usize, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
        let mut outputs = self.new_outputs(batch)?;
        self.run_into(
            batch,
            inputs,
            &mut outputs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
        )?;
        Ok(outputs)
    }

    /// [`run`](Self::run) into memory of the caller's, `batch` times the elements of each output.
    pub fn run_into(
        &self,
        batch: usize,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
    ) -> Result<()> {
        self.execute(batch, inputs, outputs, |_, run| run())
    }

    /// Runs the plan `repeats` times; returns the seconds that each step took in each run.
    pub fn profile(
        &self,
        batch: usize,
        inputs: &[&[f32]],
        repeats: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let mut seconds = vec![Vec::new(); self.steps.len()];
        for _ in 0..repeats {
            seconds.iter_mut().for_each(|step| step.push(0.0));
            let mut outputs = self.new_outputs(batch)?;
            let mut outputs: Vec<_> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            self.execute(batch, inputs, &mut outputs, |step, run| {
                let start = Instant::now();
                run();
                // A step runs once for each group of images.
                if let Some(total) = seconds[step].last_mut() {
                    *total += start.elapsed().as_secs_f64();
                }
            })?;
        }
        Ok(seconds)
    }

    /// Bytes needed for a batch.
    pub fn memory(&self, batch: usize) -> PlanMemory {
        let floats: usize = self.buffers.iter().map(|b| b.len(batch, &self.segments)).sum();
        PlanMemory {
            weights: self.steps().map(|step| step.weight_bytes).sum(),
            arena: size_of::<f32>() * floats,
            scratch: size_of::<f32>() * self.scratch_len(batch),
        }
    }

    /// Calls `around(step, run)` for each step of each group, which must call `run`.
    fn execute(
        &self,
        batch: usize,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        mut around: impl FnMut(usize, &mut dyn FnMut()),
    ) -> Result<()> {
        self.check(batch, inputs)?;
        if batch == 0 {
            return Ok(());
        }
        parallel::lead(|| {
            let mut memory = Memory { inputs, arena: self.arena(batch)?, outputs };
            for segment in &self.segments {
                let size = segment.group(batch);
                for first in (0..batch).step_by(size) {
                    let group = Group { first, images: size.min(batch - first) };
                    for index in segment.steps.clone() {
                        around(index, &mut || memory.run(&self.steps[index], group));
                    }
                }
            }
            self.arenas.give_back(memory.arena);
            Ok(())
        })?
    }

    fn check(&self, batch: usize, inputs: &[&[f32]]) -> Result<()> {
        let expected = self.inputs.iter().map(|shape| shape.len().checked_mul(batch));
        let got = inputs.iter().map(|input| Some(input.len()));
        match expected.clone().eq(got.clone()) {
            true => Ok(()),
            false => Err(Error::shape(
                "inputs",
                format!("arrays of {:?} elements", expected.flatten().collect::<Vec<_>>()),
                format!("{:?}", got.flatten().collect::<Vec<_>>()),
            )),
        }
    }

    /// Elements of each output for a batch, if memory can hold them all.
    pub fn output_lens(&self, batch: usize) -> Result<Vec<usize>> {
        let extents = |shape: &Shape| [batch, shape.pixels(), shape.channels()];
        let lens = self.outputs.iter().map(|shape| result_len::<f32>("input", &extents(shape)));
        let lens = lens.collect::<Result<Vec<_>>>()?;
        result_len::<f32>("input", &[lens.iter().fold(0, |sum: usize, &n| sum.saturating_add(n))])?;
        Ok(lens)
    }

    fn new_outputs(&self, batch: usize) -> Result<Vec<Vec<f32>>> {
        Ok(self.output_lens(batch)?.into_iter().map(|len| vec![0.0; len]).collect())
    }

    /// An arena large enough for a batch: one that an earlier run has given back, or a new one.
    fn arena(&self, batch: usize) -> Result<Arena> {
        let mut arena = self.arenas.take(|| Arena {
            buffers: self.buffers.iter().map(|_| AlignedBuffer::default()).collect(),
            scratch: AlignedBuffer::default(),
        });
        for (have, need) in arena.buffers.iter_mut().zip(&self.buffers) {
            have.reserve(result_len::<f32>("input", &[need.len(batch, &self.segments)])?);
        }
        arena.scratch.reserve(result_len::<f32>("input", &[self.scratch_len(batch)])?);
        Ok(arena)
    }

    /// Floats of scratch memory of the step that needs most, on the threads in use.
    fn scratch_len(&self, batch: usize) -> usize {
        let needs = self.segments.iter().flat_map(|segment| {
            // The last group may be smaller, and then need more: layers cut small batches into
            // other parts than large ones.
            let group = segment.group(batch);
            let last = batch.checked_rem(group).filter(|&last| last > 0).unwrap_or(group);
            let steps = self.steps[segment.steps.clone()].iter();
            steps.map(move |s| s.kernel.scratch_len(group).max(s.kernel.scratch_len(last)))
        });
        needs.max().unwrap_or(0)
    }
}

impl Memory<'_, '_> {
    fn run(&mut self, step: &Step, group: Group) {
        match step.output.home {
            Home::Arena(index) => {
                let mut own = std::mem::take(&mut self.arena.buffers[index]);
                self.run_into(step, group, own.as_mut_slice());
                self.arena.buffers[index] = own;
            }
            Home::Output(index) => {
                let own = std::mem::take(&mut self.outputs[index]);
                self.run_into(step, group, own);
                self.outputs[index] = own;
            }
            Home::Input(_) => unreachable!("no step writes to the caller's arrays"),
        }
    }

    fn run_into(&mut self, step: &Step, group: Group, output: &mut [f32]) {
        let Memory { inputs, arena: Arena { buffers, scratch }, outputs } = self;
        let rows = |view: View| {
            let data = match view.home {
                Home::Input(index) => inputs[index],
                Home::Output(index) => &*outputs[index],
                Home::Arena(index) => buffers[index].as_slice(),
            };
            view.rows(data, group)
        };
        let (input, second) = (rows(step.input), step.second.map(rows));
        let output = step.output.rows_mut(output, group);
        step.kernel.run(group.images, input, second, output, scratch.as_mut_slice());
    }
}
