use super::soft_cross_entropy;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// What the contrastive loss with a queue compares; pictures and texts are unit vectors, pairs in the same rows.
#[derive(Clone, Debug)]
pub struct ItcKeys {
    /// `[B, E]`: what the momentum model makes of the batch's pictures.
    pub image: Tensor<2>,
    /// `[B, E]`: and of its texts.
    pub text: Tensor<2>,
    /// `[Q, E]`: what it made of pictures and of texts before.
    pub queues: Option<[Tensor<2>; 2]>,
}

/// The loss, and the similarities that hard negatives are drawn by.
#[derive(Clone, Debug)]
pub struct ItcMomentum {
    /// `[1]`.
    pub loss: Tensor<1>,
    /// `[B, B + Q]`: each picture to every text, scaled.
    pub image_to_text: Tensor<2>,
    /// `[B, B + Q]`: each text to every picture, scaled.
    pub text_to_image: Tensor<2>,
}

/// Image-text contrastive loss against a momentum model's vectors and queues of its earlier ones, with momentum
/// distillation (Li et al., "Align before fuse", 2021, equations 1 to 6).
///
/// The targets of a row are `1 - alpha` times the given ones and `alpha` times what the momentum model's own
/// similarities say. No gradient flows into the keys unless they have a graph.
///
/// # Shapes
/// `image, text: [B, E]`; `temperature: [1]`; `targets: [B, B + Q]`, rows that sum to 1. All on one device.
pub fn itc_momentum(
    image: Tensor<2>,
    text: Tensor<2>,
    keys: &ItcKeys,
    temperature: Tensor<1>,
    targets: Tensor<2>,
    alpha: f32,
) -> ItcMomentum {
    let all = |batch: &Tensor<2>, queue: usize| match &keys.queues {
        Some(queues) => Tensor::cat(vec![batch.clone(), queues[queue].clone()], 0),
        None => batch.clone(),
    };
    let (images, texts) = (all(&keys.image, 0), all(&keys.text, 1)); // [B + Q, E]
    let temperature: Tensor<2> = temperature.unsqueeze(); // [1, 1]
    let similarities = |queries: Tensor<2>, keys: &Tensor<2>| {
        queries.matmul(keys.clone().transpose()) / temperature.clone()
    };
    let mixed = |queries: &Tensor<2>, keys: &Tensor<2>| {
        if alpha == 0.0 {
            return targets.clone();
        }
        let taught = softmax(similarities(queries.clone(), keys), 1).detach();
        taught * alpha + targets.clone() * (1.0 - alpha)
    };
    let image_to_text = similarities(image, &texts);
    let text_to_image = similarities(text, &images);
    let rows = soft_cross_entropy(image_to_text.clone(), mixed(&keys.image, &texts)).mean();
    let columns = soft_cross_entropy(text_to_image.clone(), mixed(&keys.text, &images)).mean();
    ItcMomentum {
        loss: (rows + columns) / 2.0,
        image_to_text,
        text_to_image,
    }
}
