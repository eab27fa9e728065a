//! Training of a dual encoder on a case's inputs.

use super::{AdamW, Case, gradients};
use burn::tensor::Device;
use std::collections::BTreeMap;
use vlm_models::capability::{Pictures, Tokens};
use vlm_models::families::Model;
use vlm_models::families::dual_encoder::DualEncoder;
use vlm_models::reference::Inputs;
use vlm_nn::Statistics;
use vlm_nn::weights::{Checkpoint, collect};

/// The pairs of a case.
fn pairs(case: &Case, device: &Device) -> (Pictures, Tokens) {
    let inputs = Inputs::new(case.inputs());
    let pictures = match inputs.integers::<2>("spatial_shapes").unwrap() {
        Some((_, sizes)) => Pictures::Patches {
            pixel_values: inputs.floats("pixel_values", device).unwrap().unwrap(),
            spatial_shapes: sizes
                .chunks(2)
                .map(|s| [s[0] as usize, s[1] as usize])
                .collect(),
        },
        None => {
            let names = ["pixel_values", "image"];
            let mut found = names.iter().map(|n| inputs.floats::<4>(n, device).unwrap());
            Pictures::Fixed(found.find_map(|pixels| pixels).unwrap())
        }
    };
    let mut found = ["input_ids", "text"]
        .iter()
        .map(|n| inputs.integers::<2>(n).unwrap());
    let (shape, ids) = found.find_map(|ids| ids).unwrap();
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let rows = ids.chunks(shape[1]).map(<[u32]>::to_vec);
    (pictures, Tokens::new(rows.collect(), None).unwrap())
}

/// Gradients, running statistics after the first step, and the losses of ten steps agree with the reference.
#[track_caller]
pub fn compare_training(
    case: &Case,
    statistics: Statistics,
    translated: impl Fn(Checkpoint) -> Checkpoint,
) {
    let device = Device::flex().autodiff();
    let (Model::Clip(model) | Model::Siglip(model)) = case.load(&device) else {
        panic!("a dual encoder");
    };
    let mut model: DualEncoder = model.with_statistics(statistics);
    let mut optimizer = AdamW::default();
    let mut losses = Vec::new();
    let (pictures, texts) = pairs(case, &device);
    for step in 0..10 {
        let loss = model.loss(&pictures, &texts).unwrap();
        let found: Vec<f32> = loss.clone().into_data().try_to_vec().unwrap();
        losses.push(found[0]);
        let grads = gradients(&model, &loss.backward());
        if step == 0 {
            case.compare_gradients(&grads, &translated);
            if statistics == Statistics::Batch {
                let parameters = collect(&model);
                let values = parameters.into_iter().map(|(k, (_, v))| (k, v));
                case.compare_statistics(&values.collect::<BTreeMap<_, _>>(), &translated);
            }
        }
        model = optimizer.step(model, grads);
    }
    case.compare_losses(&losses);
}
