//! What torchvision gives by name.

use super::FasterRcnn;
use crate::capability::DetectOptions;
use crate::error::{Error, expect};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value};
use burn::tensor::Tensor;

/// torchvision's results of one picture: `boxes`, `scores`, `labels` from `pixel_values` `[1, 3, H, W]` in [0, 1], and what
/// is on the way: `features.I` (the pyramid, channels first), `objectness.I`, `rpn_deltas.I`, `proposals`, `class_logits`,
/// `box_regression`.
impl Reference for FasterRcnn {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let device = self.device();
        let Some(pixels) = inputs.floats::<4>("pixel_values", &device)? else {
            return Ok(outputs);
        };
        let [b, c, h, w] = pixels.dims();
        expect(
            b == 1 && c == 3,
            "pixel_values",
            "[1, 3, H, W]",
            format!("{:?}", pixels.dims()),
        )?;
        let pass = self.pass(Self::picture(&pixels, 0));
        let mut put = |name: String, value: Value| outputs.insert(name, value);
        let first = |x: &Tensor<4>| Value::floats(x.clone().permute([0, 3, 1, 2]));
        for (i, (map, level)) in pass
            .features
            .maps
            .iter()
            .zip(&pass.features.levels)
            .enumerate()
        {
            put(format!("features.{i}"), first(map));
            put(format!("objectness.{i}"), first(&level.scores));
            put(format!("rpn_deltas.{i}"), first(&level.changes));
        }
        let floats = |shape: &[usize], numbers: Vec<f32>| Value {
            shape: shape.to_vec(),
            numbers: Numbers::Floats(numbers),
        };
        let regions: Vec<f32> = pass.proposals.iter().flat_map(|p| p.0).collect();
        let count = pass.proposals.len();
        put("proposals".to_owned(), floats(&[count, 4], regions));
        put(
            "class_logits".to_owned(),
            Value::floats(pass.logits.clone()),
        );
        put(
            "box_regression".to_owned(),
            Value::floats(pass.changes.clone()),
        );
        let objects = self.objects(&pass, [h, w], &DetectOptions::default());
        let n = objects.len();
        let boxes = objects.iter().flat_map(|o| o.corners).collect();
        put("boxes".to_owned(), floats(&[n, 4], boxes));
        let scores = objects.iter().map(|o| o.score).collect();
        put("scores".to_owned(), floats(&[n], scores));
        let labels = objects.iter().map(|o| o.class as i64).collect();
        put(
            "labels".to_owned(),
            Value {
                shape: vec![n],
                numbers: Numbers::Integers(labels),
            },
        );
        Ok(outputs)
    }
}
