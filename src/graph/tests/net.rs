//! Networks for tests: building them in a line a layer, and their values by the eager kernels.

use super::super::*;
use crate::conv::reference::{close, values};
use crate::conv::{Activation, Options, Padding, Precision, Storage, forward};
use crate::layers::activation::{self, Function};
use crate::layers::avg_pool::{self};
use crate::layers::batch_norm::{self, normalize};
use crate::layers::gather::Border;
use crate::layers::max_pool;
use crate::layers::softmax::{log_softmax, softmax};
use crate::layers::windows::{Pool2d, Sliding};

pub const OPTIONS: Options = Options { precision: Precision::Direct, storage: Storage::F32 };

/// A graph and the arrays it refers to.
#[derive(Default)]
pub struct Net {
    pub graph: Graph,
    pub constants: Vec<Vec<f32>>,
    serial: u64,
}

impl Net {
    pub fn image(channels: usize, height: usize, width: usize) -> (Net, Value) {
        let mut net = Net::default();
        let x = net.graph.input(Shape::Image { channels, height, width }).unwrap();
        (net, x)
    }

    pub fn array(&mut self, data: Vec<f32>) -> Constant {
        let constant = self.graph.constant(data.len());
        self.constants.push(data);
        constant
    }

    pub fn random(&mut self, len: usize, around: f32) -> Constant {
        let seed = 100 + self.constants.len() as u64;
        self.array(values(len, seed).iter().map(|v| around + 0.5 * v).collect())
    }

    pub fn key(&mut self) -> Key {
        self.serial += 1;
        vec![(self.serial, 0)]
    }

    pub fn conv(&mut self, x: Value, outputs: usize, kernel: usize, stride: usize) -> Value {
        let channels = self.graph.shape(x).unwrap().channels();
        let shape = (kernel, kernel, channels, outputs);
        let weight = self.random(kernel * kernel * channels * outputs, 0.0);
        let bias = self.random(outputs, 0.0);
        let padding = Padding::symmetric(kernel / 2, kernel / 2);
        let args = ConvArgs { stride: (stride, stride), padding, dilation: (1, 1), groups: 1 };
        let key = self.key();
        self.graph.conv2d(x, weight, shape, Some(bias), args, key, "conv").unwrap()
    }

    pub fn linear(&mut self, x: Value, outputs: usize) -> Value {
        let features = self.graph.shape(x).unwrap().channels();
        let weight = self.random(features * outputs, 0.0);
        let key = self.key();
        self.graph.linear(x, weight, (outputs, features), None, key, "linear").unwrap()
    }

    pub fn norm(&mut self, x: Value) -> Value {
        let channels = self.graph.shape(x).unwrap().channels();
        let norm = Norm {
            mean: self.random(channels, 0.0),
            var: self.random(channels, 1.0),
            weight: Some(self.random(channels, 1.0)),
            bias: Some(self.random(channels, 0.0)),
            eps: 1e-5,
            key: self.key(),
            affine: false,
        };
        self.graph.batch_norm(x, norm, "bn").unwrap()
    }

    pub fn relu(&mut self, x: Value) -> Value {
        self.graph.map(x, Function::Clamp(Activation::Relu), "relu").unwrap()
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.graph.add(a, b, "add").unwrap()
    }

    pub fn concat(&mut self, inputs: &[Value]) -> Value {
        self.graph.concat(inputs, "cat").unwrap()
    }

    pub fn flatten(&mut self, x: Value) -> Value {
        self.graph.flatten(x, "flatten").unwrap()
    }

    pub fn pad(&mut self, x: Value, by: usize) -> Value {
        let zeros = Border::Constant(0.0);
        self.graph.pad(x, Padding::symmetric(by, by), (0, 0), zeros, "pad").unwrap()
    }

    pub fn scale(&mut self, x: Value, factor: f32, summand: f32) -> Value {
        self.graph.map(x, Function::Scale(factor, summand), "scale").unwrap()
    }

    pub fn mean(&mut self, x: Value, size: usize) -> Value {
        self.graph.adaptive_avg_pool2d(x, (size, size), "mean").unwrap()
    }

    pub fn compile(&self, outputs: &[Value], packed: &PackedWeights) -> Plan {
        self.compile_for(Precision::Direct, outputs, packed)
    }

    pub fn compile_for(
        &self,
        precision: Precision,
        outputs: &[Value],
        packed: &PackedWeights,
    ) -> Plan {
        let constants: Vec<&[f32]> = self.constants.iter().map(Vec::as_slice).collect();
        let options = Options { precision, ..OPTIONS };
        self.graph.compile(outputs, &constants, options, packed).unwrap()
    }

    pub fn inputs(&self, batch: usize) -> Vec<Vec<f32>> {
        let shapes = self.graph.nodes().iter().filter(|n| matches!(n.op, Op::Input(_)));
        shapes.enumerate().map(|(i, n)| values(batch * n.shape.len(), 7 + i as u64)).collect()
    }

    /// Checks a plan against the eager kernels; returns its steps as `op+fused+fused`.
    pub fn check(&self, outputs: &[Value]) -> Vec<String> {
        let plan = self.compile(outputs, &PackedWeights::new());
        for batch in [0, 1, 3] {
            let inputs = self.inputs(batch);
            let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            let expected = self.eager(batch, &inputs);
            let got = plan.run(batch, &inputs).unwrap();
            assert_eq!(got.len(), outputs.len());
            for (got, &output) in got.iter().zip(outputs) {
                assert!(close(got, &expected[output], 2e-5), "{:#?}", plan);
            }
            // The memory of the first run is used again.
            assert_eq!(plan.run(batch, &inputs).unwrap(), got);
        }
        plan.steps().map(|s| [&[s.op], &s.fused[..]].concat().join("+")).collect()
    }

    /// All values, each by the eager kernel of its operation.
    pub fn eager(&self, batch: usize, inputs: &[&[f32]]) -> Vec<Vec<f32>> {
        let mut results: Vec<Vec<f32>> = Vec::new();
        for node in self.graph.nodes() {
            results.push(self.eager_node(node, batch, inputs, &results));
        }
        results
    }

    pub fn eager_node(
        &self,
        node: &Node,
        batch: usize,
        inputs: &[&[f32]],
        results: &[Vec<f32>],
    ) -> Vec<f32> {
        let at = |constant: Constant| &self.constants[constant][..];
        let x = |index: usize| &results[node.inputs[index]][..];
        let shape = |index: usize| self.graph.nodes()[node.inputs[index]].shape;
        let channels = node.shape.channels();
        match &node.op {
            Op::Input(index) => inputs[*index].to_vec(),
            Op::Layer(layer) => {
                let conv = crate::conv::Conv2d { batch, ..layer.conv };
                let weight = match layer.linear {
                    false => at(layer.weight).to_vec(),
                    true => (0..conv.weight_len())
                        .map(|i| {
                            let (k, o) = (i / channels, i % channels);
                            at(layer.weight)[o * conv.depth() + k]
                        })
                        .collect(),
                };
                forward(&conv, x(0), &weight, layer.bias.map(at), Precision::Direct)
            }
            Op::BatchNorm(norm, _) => {
                let (weight, bias) = (norm.weight.map(at), norm.bias.map(at));
                let norm =
                    batch_norm::Norm::new(at(norm.mean), at(norm.var), weight, bias, norm.eps);
                normalize(&norm.unwrap(), x(0)).unwrap()
            }
            Op::Map(function @ (Function::Sigmoid | Function::Tanh)) => {
                activation::apply(*function, x(0))
            }
            Op::Map(Function::Clamp(clamp)) => x(0).iter().map(|&x| clamp.apply(x)).collect(),
            Op::Map(Function::Scale(f, o)) => x(0).iter().map(|&x| x * f + o).collect(),
            Op::Add(_) => x(0).iter().zip(x(1)).map(|(a, b)| a + b).collect(),
            Op::Channels(first) => {
                let rows = x(0).chunks(shape(0).channels().max(1));
                rows.flat_map(|row| &row[*first..first + channels]).copied().collect()
            }
            Op::MaxPool(pool) => max_pool::forward(&Pool2d { batch, ..pool.clone() }, x(0)),
            Op::AvgPool(pool, divisor) => {
                avg_pool::forward(&Pool2d { batch, ..pool.clone() }, *divisor, x(0))
            }
            Op::Gather(gather, _) => gather.forward(batch, x(0)).unwrap(),
            Op::Bilinear(resize) => resize.forward(batch, x(0)).unwrap(),
            Op::ResponseNorm(norm) => norm.forward(channels, x(0)),
            Op::Concat => {
                let row = |i: usize, index: usize| {
                    let width = shape(index).channels();
                    x(index)[i * width..(i + 1) * width].to_vec()
                };
                let rows = 0..batch * node.shape.pixels();
                rows.flat_map(|i| (0..node.inputs.len()).flat_map(move |k| row(i, k))).collect()
            }
            Op::Flatten => {
                let (c, p) = (shape(0).channels(), shape(0).pixels());
                let from = |i: usize| i / (c * p) * c * p + i % p * c + i / p % c;
                (0..batch * c * p).map(|i| x(0)[from(i)]).collect()
            }
            Op::Softmax { log: false } => softmax(channels, x(0)),
            Op::Softmax { log: true } => log_softmax(channels, x(0)),
            Op::Dropout | Op::Copy => x(0).to_vec(),
            Op::TrainNorm(_) | Op::RandomDrop(_) => unreachable!("plans for evaluation refuse it"),
            Op::Gone => vec![],
        }
    }
}

pub fn sliding(kernel: usize, stride: usize, padding: usize, ceil_mode: bool) -> Sliding {
    Sliding {
        kernel: (kernel, kernel),
        stride: (stride, stride),
        padding: (padding, padding),
        dilation: (1, 1),
        ceil_mode,
    }
}
