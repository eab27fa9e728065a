//! What the reference script gives by name.

use super::Vinvl;
use crate::capability::DetectOptions;
use crate::error::{Error, expect};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value};
use burn::tensor::Tensor;

/// Results of one picture from `pixel_values` `[1, 3, H, W]`, blue first and without the mean: `features`, `objectness`,
/// `rpn_deltas` (channels first), `proposals`, `class_logits`, `box_regression`; `boxes`, `scores`, `labels`,
/// `box_features` and `attribute_probs` of the objects.
impl Reference for Vinvl {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let Some(pixels) = inputs.floats::<4>("pixel_values", &self.device())? else {
            return Ok(outputs);
        };
        let [b, c, h, w] = pixels.dims();
        expect(
            b == 1 && c == 3,
            "pixel_values",
            "[1, 3, H, W]",
            format!("{:?}", pixels.dims()),
        )?;
        let pass = self.pass(pixels.reshape([c, h, w]));
        let objects = self.objects(&pass, &DetectOptions::default());
        let mut put = |name: &str, value: Value| outputs.insert(name.to_owned(), value);
        let first = |x: &Tensor<4>| Value::floats(x.clone().permute([0, 3, 1, 2]));
        put("features", first(&pass.features.map));
        put("objectness", first(&pass.features.level.scores));
        put("rpn_deltas", first(&pass.features.level.changes));
        put("class_logits", Value::floats(pass.logits.clone()));
        put("box_regression", Value::floats(pass.changes.clone()));
        put(
            "box_features",
            Value::floats(Self::features_of(&pass, &objects)),
        );
        if let Some(part) = self.attribute.as_ref().filter(|_| !objects.is_empty()) {
            let probabilities = self.attribute_probabilities(part, &pass, &objects);
            put("attribute_probs", Value::floats(probabilities));
        }
        let floats = |shape: &[usize], numbers: Vec<f32>| Value {
            shape: shape.to_vec(),
            numbers: Numbers::Floats(numbers),
        };
        let (r, n) = (pass.proposals.len(), objects.len());
        put("proposals", floats(&[r, 4], pass.proposals.concat()));
        let corners = objects.iter().flat_map(|(_, o)| o.corners).collect();
        put("boxes", floats(&[n, 4], corners));
        let scores = objects.iter().map(|(_, o)| o.score).collect();
        put("scores", floats(&[n], scores));
        let labels = objects.iter().map(|(_, o)| o.class as i64).collect();
        put(
            "labels",
            Value {
                shape: vec![n],
                numbers: Numbers::Integers(labels),
            },
        );
        Ok(outputs)
    }
}
