//! The convolutions of real networks: layers.txt, which layers.py wrote.

use oxidet::conv::{Conv2d, Padding};

/// One distinct convolution of a network, batch 1.
pub struct Layer {
    /// The network.
    pub network: &'static str,
    /// torchvision's name of the first layer with this geometry.
    pub name: &'static str,
    /// Its geometry.
    pub conv: Conv2d,
    /// How many layers of the network have it.
    pub times: usize,
}

impl Layer {
    /// What the benchmark is called: `layer1.0.conv1 3x3 64->64 @56x56`.
    pub fn title(&self) -> String {
        let Conv2d { kernel, in_channels, out_channels, input, stride, groups, .. } = self.conv;
        let step = if stride == (1, 1) { String::new() } else { format!("/{}", stride.0) };
        let split = if groups == 1 { String::new() } else { format!(" in {groups}") };
        format!(
            "{} {}x{}{step}{split} {in_channels}->{out_channels} @{}x{} x{}",
            self.name, kernel.0, kernel.1, input.0, input.1, self.times,
        )
    }
}

/// All of them, network by network.
pub fn layers() -> Vec<Layer> {
    include_str!("layers.txt").lines().filter(|line| !line.starts_with('#')).map(parse).collect()
}

fn parse(line: &'static str) -> Layer {
    let mut fields = line.split_whitespace();
    let mut text = || fields.next().expect("a field for every column");
    let (network, name) = (text(), text());
    let mut number = || text().parse::<usize>().expect("a number");
    let [h, w, c, o, kh, kw, sh, sw, ph, pw, groups, times] = std::array::from_fn(|_| number());
    let conv = Conv2d::new(
        (1, h, w, c),
        (kh, kw, c / groups, o),
        (sh, sw),
        Padding::symmetric(ph, pw),
        (1, 1),
        groups,
    )
    .expect("a legal layer");
    Layer { network, name, conv, times }
}
