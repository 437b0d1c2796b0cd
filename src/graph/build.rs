//! Adding operations to a graph: each is checked and its shape computed by the geometry that the
//! eager operation uses, so that both accept the same arguments and refuse with the same words.

use super::ir::{Constant, Graph, Key, Layer, Node, Norm, Op, RandomDrop, Shape, TrainNorm, Value};
use crate::conv::{Activation, Conv2d, Padding};
use crate::layers::activation::Function;
use crate::layers::avg_pool::Divisor;
use crate::layers::bilinear::Bilinear2d;
use crate::layers::gather::{Border, Every, Gather2d};
use crate::layers::response_norm::ResponseNorm;
use crate::layers::windows::{Pool2d, Sliding};
use crate::memory::result_len;
use crate::{Error, Result};

/// Arguments of a convolution besides its arrays; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvArgs {
    /// Step of the kernel.
    pub stride: (usize, usize),
    /// Zeros around the input.
    pub padding: Padding,
    /// Distance of neighbouring kernel taps.
    pub dilation: (usize, usize),
    /// Number of independent channel groups.
    pub groups: usize,
}

impl Graph {
    /// Registers an array of `len` elements that operations refer to.
    pub fn constant(&mut self, len: usize) -> Constant {
        self.constants.push(len);
        self.constants.len() - 1
    }

    /// An input of the graph; they are numbered in the order of these calls.
    pub fn input(&mut self, shape: Shape) -> Result<Value> {
        result_len::<f32>("input", &shape.extents())?;
        self.inputs.push(self.nodes.len());
        Ok(self.push(Op::Input(self.inputs.len() - 1), vec![], shape, "input"))
    }

    /// Shape of a value.
    pub fn shape(&self, value: Value) -> Result<Shape> {
        match self.nodes.get(value) {
            Some(node) => Ok(node.shape),
            None => {
                let expected = format!("one of the {} values of this graph", self.nodes.len());
                Err(Error::value("input", expected, value.to_string()))
            }
        }
    }

    /// A convolution; `weight_shape` is (kh, kw, C / groups, O).
    pub fn conv2d(
        &mut self,
        input: Value,
        weight: Constant,
        weight_shape: (usize, usize, usize, usize),
        bias: Option<Constant>,
        args: ConvArgs,
        key: Key,
        name: &str,
    ) -> Result<Value> {
        let ConvArgs { stride, padding, dilation, groups } = args;
        let image = self.image(input)?;
        let conv = Conv2d::new(image, weight_shape, stride, padding, dilation, groups)?;
        self.check_constant(weight, "weight", conv.weight_len())?;
        let (height, width) = conv.output;
        let shape = Shape::Image { channels: conv.out_channels, height, width };
        self.layer(input, conv, weight, false, bias, key, shape, name)
    }

    /// A fully connected layer; `weight_shape` is (out, in).
    pub fn linear(
        &mut self,
        input: Value,
        weight: Constant,
        weight_shape: (usize, usize),
        bias: Option<Constant>,
        key: Key,
        name: &str,
    ) -> Result<Value> {
        let (outputs, features) = weight_shape;
        let shape = self.shape(input)?;
        if shape != Shape::Vector(features) {
            let expected = format!("shape (N, {features})");
            return Err(Error::shape("input", expected, batched(shape)));
        }
        self.check_constant(weight, "weight", outputs * features)?;
        let none = Padding::default();
        let conv =
            Conv2d::new((1, 1, 1, features), (1, 1, features, outputs), (1, 1), none, (1, 1), 1)?;
        self.layer(input, conv, weight, true, bias, key, Shape::Vector(outputs), name)
    }

    fn layer(
        &mut self,
        input: Value,
        conv: Conv2d,
        weight: Constant,
        linear: bool,
        bias: Option<Constant>,
        key: Key,
        shape: Shape,
        name: &str,
    ) -> Result<Value> {
        if let Some(bias) = bias {
            self.check_constant(bias, "bias", conv.out_channels)?;
        }
        let layer = Layer {
            conv,
            weight,
            linear,
            bias,
            key,
            norm: None,
            scale: None,
            residual: false,
            activation: Activation::Identity,
        };
        Ok(self.push(Op::Layer(Box::new(layer)), vec![input], shape, name))
    }

    /// A batch norm with fixed statistics, of images or vectors.
    pub fn batch_norm(&mut self, input: Value, norm: Norm, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        for (argument, constant) in [
            ("running_mean", Some(norm.mean)),
            ("running_var", Some(norm.var)),
            ("weight", norm.weight),
            ("bias", norm.bias),
        ] {
            if let Some(constant) = constant {
                self.check_constant(constant, argument, shape.channels())?;
            }
        }
        Ok(self.push(Op::BatchNorm(norm, Activation::Identity), vec![input], shape, name))
    }

    /// A batch norm in training, or one with factors that are trained; for training plans only.
    pub fn train_norm(&mut self, input: Value, norm: TrainNorm, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        let (mean, var) = norm.running.unzip();
        for (argument, constant) in [
            ("running_mean", mean),
            ("running_var", var),
            ("weight", norm.weight),
            ("bias", norm.bias),
        ] {
            if let Some(constant) = constant {
                self.check_constant(constant, argument, shape.channels())?;
            }
        }
        Ok(self.push(Op::TrainNorm(Box::new(norm)), vec![input], shape, name))
    }

    /// Dropout in training; for training plans only.
    pub fn random_drop(&mut self, input: Value, drop: RandomDrop, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        Ok(self.push(Op::RandomDrop(drop), vec![input], shape, name))
    }

    /// A function of single elements.
    pub fn map(&mut self, input: Value, function: Function, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        Ok(self.push(Op::Map(function), vec![input], shape, name))
    }

    /// The sum of two values of one shape.
    pub fn add(&mut self, a: Value, b: Value, name: &str) -> Result<Value> {
        let (shape, other) = (self.shape(a)?, self.shape(b)?);
        if shape != other {
            return Err(Error::shape("b", format!("shape {}", batched(shape)), batched(other)));
        }
        Ok(self.push(Op::Add(Activation::Identity), vec![a, b], shape, name))
    }

    /// `count` channels from `first` on.
    pub fn channels(
        &mut self,
        input: Value,
        first: usize,
        count: usize,
        name: &str,
    ) -> Result<Value> {
        let shape = self.shape(input)?;
        if first.checked_add(count).is_none_or(|end| end > shape.channels()) {
            let expected = format!("a range within {} channels", shape.channels());
            return Err(Error::value("first", expected, format!("{count} from {first} on")));
        }
        Ok(self.push(Op::Channels(first), vec![input], shape.with_channels(count), name))
    }

    /// Max pooling with a sliding window.
    pub fn max_pool2d(&mut self, input: Value, sliding: Sliding, name: &str) -> Result<Value> {
        let pool = Pool2d::sliding(self.image(input)?, sliding)?;
        self.pool(input, pool, None, name)
    }

    /// Average pooling with a sliding window.
    pub fn avg_pool2d(
        &mut self,
        input: Value,
        sliding: Sliding,
        divisor: Divisor,
        name: &str,
    ) -> Result<Value> {
        let pool = Pool2d::sliding(self.image(input)?, sliding)?;
        self.pool(input, pool, Some(divisor), name)
    }

    /// Max pooling to `output_size` windows.
    pub fn adaptive_max_pool2d(
        &mut self,
        input: Value,
        output_size: (usize, usize),
        name: &str,
    ) -> Result<Value> {
        let pool = Pool2d::adaptive(self.image(input)?, output_size)?;
        self.pool(input, pool, None, name)
    }

    /// Average pooling to `output_size` windows.
    pub fn adaptive_avg_pool2d(
        &mut self,
        input: Value,
        output_size: (usize, usize),
        name: &str,
    ) -> Result<Value> {
        let pool = Pool2d::adaptive(self.image(input)?, output_size)?;
        self.pool(input, pool, Some(Divisor::Pixels), name)
    }

    fn pool(
        &mut self,
        input: Value,
        pool: Pool2d,
        divisor: Option<Divisor>,
        name: &str,
    ) -> Result<Value> {
        let (_, height, width, channels) = pool.output_shape();
        result_len::<f32>("input", &[channels, height, width])?;
        let shape = Shape::Image { channels, height, width };
        let op = match divisor {
            Some(divisor) => Op::AvgPool(pool, divisor),
            None => Op::MaxPool(pool),
        };
        Ok(self.push(op, vec![input], shape, name))
    }

    /// Padding of pixels, and of channels in front and behind.
    pub fn pad(
        &mut self,
        input: Value,
        padding: Padding,
        around: (usize, usize),
        border: Border,
        name: &str,
    ) -> Result<Value> {
        let gather = Gather2d::pad(self.pixels(input)?, padding, around, border)?;
        self.gather(input, gather, "pad", name)
    }

    /// Every n-th row and column of a part of each image.
    pub fn slice(&mut self, input: Value, rows: Every, cols: Every, name: &str) -> Result<Value> {
        let gather = Gather2d::slice(self.pixels(input)?, rows, cols)?;
        self.gather(input, gather, "slice", name)
    }

    /// Resizing to the nearest pixels; see [`Gather2d::nearest`].
    pub fn nearest2d(
        &mut self,
        input: Value,
        output_size: (usize, usize),
        scales: (Option<f64>, Option<f64>),
        centres: bool,
        name: &str,
    ) -> Result<Value> {
        let gather = Gather2d::nearest(self.pixels(input)?, output_size, scales, centres)?;
        self.gather(input, gather, "interpolate", name)
    }

    fn gather(
        &mut self,
        input: Value,
        gather: Gather2d,
        op: &'static str,
        name: &str,
    ) -> Result<Value> {
        let (height, width, channels) = gather.output_shape();
        if height * width * channels == 0 {
            let got = format!("{height} x {width} pixels of {channels} channels");
            return Err(Error::shape("input", "something to be left of it", got));
        }
        let shape = Shape::Image { channels, height, width };
        Ok(self.push(Op::Gather(Box::new(gather), op), vec![input], shape, name))
    }

    /// Bilinear resizing; see [`Bilinear2d::new`].
    pub fn bilinear2d(
        &mut self,
        input: Value,
        output_size: (usize, usize),
        scales: (Option<f64>, Option<f64>),
        align_corners: bool,
        name: &str,
    ) -> Result<Value> {
        let resize = Bilinear2d::new(self.pixels(input)?, output_size, scales, align_corners)?;
        let (height, width, channels) = resize.output_shape();
        let shape = Shape::Image { channels, height, width };
        Ok(self.push(Op::Bilinear(Box::new(resize)), vec![input], shape, name))
    }

    /// Local response normalisation of images or vectors.
    pub fn response_norm(&mut self, input: Value, norm: ResponseNorm, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        Ok(self.push(Op::ResponseNorm(norm), vec![input], shape, name))
    }

    /// The channels of several values of one size, one after the other.
    pub fn concat(&mut self, inputs: &[Value], name: &str) -> Result<Value> {
        let Some((&first, rest)) = inputs.split_first() else {
            return Err(Error::shape("tensors", "at least one", "none"));
        };
        let shape = self.shape(first)?;
        let mut channels = shape.channels();
        for &value in rest {
            let other = self.shape(value)?;
            if other.with_channels(0) != shape.with_channels(0) {
                let expected = format!("the size of the first, {}", batched(shape));
                return Err(Error::shape("tensors", expected, batched(other)));
            }
            channels = channels.saturating_add(other.channels());
        }
        result_len::<f32>("tensors", &[shape.pixels(), channels])?;
        Ok(self.push(Op::Concat, inputs.to_vec(), shape.with_channels(channels), name))
    }

    /// (C, H, W) to (C * H * W,), in that order.
    pub fn flatten(&mut self, input: Value, name: &str) -> Result<Value> {
        let shape = Shape::Vector(self.shape(input)?.len());
        Ok(self.push(Op::Flatten, vec![input], shape, name))
    }

    /// Softmax over the channels, or its logarithm.
    pub fn softmax(&mut self, input: Value, log: bool, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        Ok(self.push(Op::Softmax { log }, vec![input], shape, name))
    }

    /// Dropout, which does nothing in evaluation.
    pub fn dropout(&mut self, input: Value, name: &str) -> Result<Value> {
        let shape = self.shape(input)?;
        Ok(self.push(Op::Dropout, vec![input], shape, name))
    }

    pub(super) fn push(&mut self, op: Op, inputs: Vec<Value>, shape: Shape, name: &str) -> Value {
        self.nodes.push(Node { op, inputs, shape, name: name.to_owned(), fused: vec![] });
        self.nodes.len() - 1
    }

    /// (1, H, W, C) of a value that must be an image.
    fn image(&self, value: Value) -> Result<(usize, usize, usize, usize)> {
        match self.shape(value)? {
            Shape::Image { channels, height, width } => Ok((1, height, width, channels)),
            shape => Err(Error::shape("input", "shape (N, C, H, W)", batched(shape))),
        }
    }

    /// (H, W, C) of a value that must be an image.
    fn pixels(&self, value: Value) -> Result<(usize, usize, usize)> {
        self.image(value).map(|(_, height, width, channels)| (height, width, channels))
    }

    fn check_constant(&self, constant: Constant, argument: &'static str, len: usize) -> Result<()> {
        match self.constants.get(constant) {
            Some(&got) if got == len => Ok(()),
            got => {
                let got = got.map_or_else(|| "none".to_owned(), |got| format!("{got} elements"));
                Err(Error::shape(argument, format!("{len} elements"), got))
            }
        }
    }
}

/// A shape with its batch, as messages show it.
fn batched(shape: Shape) -> String {
    let extents: Vec<String> = shape.extents().iter().map(usize::to_string).collect();
    format!("(N, {})", extents.join(", "))
}
