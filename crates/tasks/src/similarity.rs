//! Pictures against texts in the space that they share: zero-shot classification and matching.

use crate::vqa::select;
use crate::{Error, Subject, Vlm};
use vlm_models::capability::{Pictures, Similarity};

/// Texts that pictures are compared with, as unit vectors.
#[derive(Clone, Debug)]
pub struct Candidates {
    vectors: Vec<Vec<f32>>,
    similarity: Similarity,
}

impl Candidates {
    /// The cosine of a picture's unit vector with each candidate.
    pub fn cosines(&self, image: &[f32]) -> Vec<f32> {
        self.vectors.iter().map(|text| dot(text, image)).collect()
    }

    /// What the model makes of cosines: probabilities that sum to one over the candidates, or that each stand for
    /// themselves, as its [`Similarity`] says.
    pub fn probabilities(&self, cosines: &[f32]) -> Vec<f32> {
        match self.similarity {
            Similarity::Softmax { scale } => {
                let highest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = cosines
                    .iter()
                    .map(|c| (scale * (c - highest)).exp())
                    .collect();
                let sum: f32 = weights.iter().sum();
                weights.into_iter().map(|w| w / sum).collect()
            }
            Similarity::Sigmoid { scale, bias } => cosines
                .iter()
                .map(|c| 1.0 / (1.0 + (-(scale * c + bias)).exp()))
                .collect(),
        }
    }

    /// How the model turns cosines into probabilities.
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }
}

/// Texts that are matched with the regions of a picture at once.
const MATCHED: usize = 64;

/// Stands for the label in a template.
pub const PLACEHOLDER: &str = "{}";

impl Vlm {
    /// Texts to compare pictures with.
    ///
    /// # Errors
    /// Text that cannot be tokenized or is too long, or a model without a shared space.
    pub fn candidates(&self, texts: &[&str]) -> Result<Candidates, Error> {
        Ok(Candidates {
            vectors: self.embed_texts(texts)?,
            similarity: self.model().embed_text()?.similarity(),
        })
    }

    /// Labels to choose from. Each stands for the mean of its vectors in all templates, brought back to unit length, as
    /// CLIP's authors do; without templates the family's usual one is taken.
    ///
    /// # Errors
    /// As [`Self::candidates`]; no labels, or a template without a place for the label.
    pub fn labels(&self, labels: &[&str], templates: &[&str]) -> Result<Candidates, Error> {
        let refuse = |place: &str, expected: &str, found: String| Error::Model {
            place: place.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        if labels.is_empty() {
            return Err(refuse("labels", "at least one", "none".to_owned()));
        }
        if let Some(bad) = templates.iter().find(|t| !t.contains(PLACEHOLDER)) {
            let expected = "{} where the label goes";
            return Err(refuse("template", expected, format!("{bad:?}")));
        }
        let usual = [self.text()?.label_template()];
        let templates = if templates.is_empty() {
            &usual[..]
        } else {
            templates
        };
        let prompts: Vec<String> = labels
            .iter()
            .flat_map(|label| templates.iter().map(|t| t.replace(PLACEHOLDER, label)))
            .collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let mut candidates = self.candidates(&prompts)?;
        candidates.vectors = candidates
            .vectors
            .chunks(templates.len())
            .map(mean_direction)
            .collect();
        Ok(candidates)
    }

    /// The probability that text `i` belongs to the picture, for each text, by the model's matching head.
    ///
    /// # Errors
    /// A picture or text that cannot be prepared, or a family without such a head.
    pub fn matching_scores<S: Subject>(
        &self,
        image: &S,
        texts: &[&str],
    ) -> Result<Vec<f32>, Error> {
        let head = self.model().score_pair()?;
        let pictures = S::pictures(self, &[image])?;
        // regions are few enough to be beside many texts at once
        let at_once = match pictures {
            Pictures::Regions { .. } => MATCHED,
            _ => 1,
        };
        let mut scores = Vec::with_capacity(texts.len());
        for texts in texts.chunks(at_once) {
            let tokens = self.text()?.tokens(texts)?;
            let pictures = select(&pictures, &vec![0; texts.len()]);
            scores.extend(head.score_pair(&pictures, &tokens)?);
        }
        Ok(scores)
    }
}

/// The dot product of vectors of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean of vectors of one length, as a unit vector.
fn mean_direction(vectors: &[Vec<f32>]) -> Vec<f32> {
    let [first, rest @ ..] = vectors else {
        return Vec::new();
    };
    if rest.is_empty() {
        return first.clone();
    }
    let mut sum = first.clone();
    for vector in rest {
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v);
    }
    // opposite vectors have no mean direction
    let length = dot(&sum, &sum).sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|s| *s /= length);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_data::image::Image;

    fn candidates(similarity: Similarity) -> Candidates {
        Candidates {
            vectors: vec![vec![1.0, 0.0], vec![0.6, 0.8]],
            similarity,
        }
    }

    #[test]
    fn softmax_is_over_the_candidates_and_sigmoid_for_each_by_itself() {
        let soft = candidates(Similarity::Softmax { scale: 10.0 });
        let cosines = soft.cosines(&[0.8, 0.6]);
        assert!((cosines[0] - 0.8).abs() < 1e-6 && (cosines[1] - 0.96).abs() < 1e-6);
        let p = soft.probabilities(&cosines);
        let expected = 1.0 / (1.0 + (-1.6f32).exp());
        assert!((p[1] - expected).abs() < 1e-6 && (p[0] + p[1] - 1.0).abs() < 1e-6);

        let (scale, bias) = (10.0, -8.0);
        let p = candidates(Similarity::Sigmoid { scale, bias }).probabilities(&cosines);
        assert!((p[0] - 0.5).abs() < 1e-6, "{p:?}");
        assert!((p[1] - expected).abs() < 1e-6, "{p:?}");
    }

    #[test]
    fn probabilities_of_a_sharp_temperature_do_not_overflow() {
        let p = candidates(Similarity::Softmax { scale: 1e6 }).probabilities(&[0.9, -0.9]);
        assert_eq!(p, [1.0, 0.0]);
    }

    #[test]
    fn an_ensemble_is_the_renormalised_mean_of_its_templates() {
        let mean = mean_direction(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        let half = 0.5f32.sqrt();
        assert!(mean.iter().all(|m| (m - half).abs() < 1e-6), "{mean:?}");
        assert_eq!(mean_direction(&[vec![0.6, 0.8]]), [0.6, 0.8]);
        let none = mean_direction(&[vec![1.0, 0.0], vec![-1.0, 0.0]]);
        assert!(none.iter().all(|m| m.is_finite()));
    }

    #[test]
    fn the_built_in_model_tells_shapes_apart() {
        use vlm_worlds::shapes::{Config, Split, generate};
        let vlm = Vlm::builtin().unwrap();
        let error = vlm.labels(&["star"], &["no place"]).unwrap_err();
        assert!(error.to_string().contains("template"), "{error}");
        let shapes = ["circle", "square", "triangle", "star", "heart", "ring"];
        let labels = vlm.labels(&shapes, &[]).unwrap();
        let (mut right, mut n) = (0, 0);
        for index in 0..400 {
            let config = Config {
                difficulty: 0.0,
                ..Config::default()
            };
            let item = generate(&config, Split::Test, 5, index);
            let [object] = &item.scene.objects[..] else {
                continue;
            };
            let name = format!("{:?}", object.shape).to_lowercase();
            let Some(truth) = shapes.iter().position(|s| *s == name) else {
                continue;
            };
            let p = item.picture;
            let image = Image::from_rgb(p.width, p.height, p.rgb).unwrap();
            let vector = vlm.embed_images(&[&image]).unwrap().swap_remove(0);
            let cosines = labels.cosines(&vector);
            let best = (0..shapes.len()).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
            right += usize::from(best == Some(truth));
            n += 1;
        }
        assert!(n >= 30 && right * 10 >= n * 8, "{right} of {n}");
    }
}
