//! What each patch of a rendered scene shows: the targets of token labeling.

use crate::batches::IGNORE;
use burn::tensor::{Device, Tensor, TensorData};
use vlm_models::objectives::TokenLabels;
use vlm_worlds::shapes::{
    Background, Colour, Object, Relation, Scene, Shape, Size, Texture, is_held_out,
};

/// Rows, and columns, that the place of an object's centre is told in.
const BINS: usize = 8;

/// Classes of each group of patch labels.
pub const TOKEN_LABEL_CLASSES: [usize; 9] = [
    // the last is no object
    Shape::ALL.len() + 1,
    Colour::ALL.len(),
    Texture::ALL.len(),
    Size::ALL.len(),
    // row and column of the object's centre
    BINS,
    BINS,
    // whether the patch is the object's central one, so that there is one for each object
    2,
    // contact with other objects: none, touching one, inside of one, around one
    4,
    Background::ALL.len(),
];

const CLASSES: usize = {
    let (mut sum, mut i) = (0, 0);
    while i < TOKEN_LABEL_CLASSES.len() {
        sum += TOKEN_LABEL_CLASSES[i];
        i += 1;
    }
    sum
};

/// Far below every logit, and finite, so that a sum with it is a number.
pub(crate) const NEVER: f32 = -1e4;

/// Labels of pictures in host memory.
#[derive(Debug, Default)]
pub(crate) struct PatchLabels {
    classes: Vec<i64>,
    adjustment: Vec<f32>,
}

impl PatchLabels {
    /// Adds a picture of `side` times `side` pixels: each patch shows the foremost object whose box holds its centre.
    pub(crate) fn add(&mut self, scene: &Scene, side: usize, patch: usize) {
        let centres: Vec<[usize; 2]> = (patch / 2..side)
            .step_by(patch)
            .flat_map(|y| (patch / 2..side).step_by(patch).map(move |x| [x, y]))
            .collect();
        // objects stand from back to front
        let shown: Vec<Option<usize>> = centres
            .iter()
            .map(|&[x, y]| {
                scene.objects.iter().rposition(|o| {
                    let [left, top, right, bottom] = o.bounds.map(|b| b as usize);
                    (left..right).contains(&x) && (top..bottom).contains(&y)
                })
            })
            .collect();
        let central: Vec<Option<usize>> = scene
            .objects
            .iter()
            .enumerate()
            .map(|(index, object)| {
                let [cx, cy] = centre(object);
                (0..centres.len())
                    .filter(|&p| shown[p] == Some(index))
                    .min_by_key(|&p| {
                        let [x, y] = centres[p].map(|c| c as i64);
                        (2 * x - cx).pow(2) + (2 * y - cy).pow(2)
                    })
            })
            .collect();
        let background = class(Background::ALL, scene.background);
        for (p, shown) in shown.into_iter().enumerate() {
            let from = self.adjustment.len();
            self.adjustment.resize(from + CLASSES, 0.0);
            let Some(index) = shown else {
                let none = Shape::ALL.len() as i64;
                let mut labels = [IGNORE; TOKEN_LABEL_CLASSES.len()];
                labels[0] = none;
                labels[8] = background;
                self.classes.extend(labels);
                continue;
            };
            let object = &scene.objects[index];
            let [cx, cy] = centre(object);
            let bin = |twice: i64| (twice * BINS as i64 / (2 * side as i64)).min(BINS as i64 - 1);
            self.classes.extend([
                class(Shape::ALL, object.shape),
                class(Colour::ALL, object.colour),
                class(Texture::ALL, object.texture),
                class(Size::ALL, object.size),
                bin(cy),
                bin(cx),
                i64::from(central[index] == Some(p)),
                contact(scene, index),
                background,
            ]);
            adjust(object, &mut self.adjustment[from..]);
        }
    }

    /// Takes the labels of colours, the background's too, from the picture that was added last.
    pub(crate) fn forget_colours(&mut self, patches: usize) {
        let from = self.classes.len() - patches * TOKEN_LABEL_CLASSES.len();
        for labels in self.classes[from..].chunks_exact_mut(TOKEN_LABEL_CLASSES.len()) {
            (labels[1], labels[8]) = (IGNORE, IGNORE);
        }
    }

    /// # Shapes
    /// `[pictures, patches]` of what was added.
    pub(crate) fn to_device(&self, [b, n]: [usize; 2], device: &Device) -> TokenLabels {
        let classes = TensorData::new(self.classes.clone(), [b, n, TOKEN_LABEL_CLASSES.len()]);
        let adjustment = TensorData::new(self.adjustment.clone(), [b, n, CLASSES]);
        TokenLabels {
            classes: Tensor::from_data(classes, device),
            adjustment: Tensor::from_data(adjustment, device),
        }
    }
}

/// Twice the centre of an object's box, x and y.
fn centre(object: &Object) -> [i64; 2] {
    let [left, top, right, bottom] = object.bounds.map(i64::from);
    [left + right, top + bottom]
}

fn class<T: PartialEq>(all: &[T], value: T) -> i64 {
    let place = all.iter().position(|v| *v == value);
    place.map_or(IGNORE, |p| p as i64)
}

fn contact(scene: &Scene, index: usize) -> i64 {
    let any = |of: &dyn Fn(usize, usize, Relation) -> bool| {
        let mut relations = scene.relations.iter();
        relations.any(|f| of(f.subject, f.object, f.relation))
    };
    if any(&|s, _, r| s == index && r == Relation::Inside) {
        2
    } else if any(&|_, o, r| o == index && r == Relation::Inside) {
        3
    } else if any(&|s, o, r| (s == index || o == index) && r == Relation::Touching) {
        1
    } else {
        0
    }
}

/// Leaves out the shapes, colours and textures that training never shows with the object's other attributes.
fn adjust(object: &Object, adjustment: &mut [f32]) {
    let (c, t, s) = (object.colour, object.texture, object.shape);
    let (shapes, rest) = adjustment.split_at_mut(TOKEN_LABEL_CLASSES[0]);
    let (colours, textures) = rest.split_at_mut(TOKEN_LABEL_CLASSES[1]);
    let shapes = Shape::ALL.iter().zip(shapes);
    let shapes = shapes.filter(|(shape, _)| is_held_out(Some(c), Some(t), **shape));
    let colours = Colour::ALL.iter().zip(colours);
    let colours = colours.filter(|(colour, _)| is_held_out(Some(**colour), None, s));
    let textures = Texture::ALL.iter().zip(textures);
    let textures = textures.filter(|(texture, _)| is_held_out(None, Some(**texture), s));
    shapes.for_each(|(_, a)| *a = NEVER);
    colours.for_each(|(_, a)| *a = NEVER);
    textures.for_each(|(_, a)| *a = NEVER);
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_worlds::shapes::{Position, RelationFact};

    #[test]
    fn patches_are_labelled_with_the_foremost_object() {
        let object = |shape, bounds| Object {
            shape,
            colour: Colour::Green,
            size: Size::Large,
            texture: Texture::Plain,
            position: Position::TopLeft,
            bounds,
        };
        let scene = Scene {
            background: Background::ALL[1],
            objects: vec![
                object(Shape::Star, [0, 0, 24, 24]),
                object(Shape::Cross, [16, 0, 32, 16]),
            ],
            relations: vec![RelationFact {
                subject: 1,
                relation: Relation::Touching,
                object: 0,
            }],
        };
        let mut labels = PatchLabels::default();
        labels.add(&scene, 48, 16);
        let rows: Vec<&[i64]> = labels.classes.chunks(9).collect();
        assert_eq!(rows.len(), 9);
        // centres (12, 12) of 48 pixels lie in row and column 2 of 8
        assert_eq!(rows[0], [3, 3, 0, 1, 2, 2, 1, 1, 1]);
        assert_eq!(rows[1], [5, 3, 0, 1, 1, 4, 1, 1, 1]);
        let none = [8, -1, -1, -1, -1, -1, -1, -1, 1];
        assert_eq!(rows[2], none);
        // the centre (24, 24) lies just outside of the first box
        assert_eq!(rows[4], none);
        assert_eq!(rows[3], none);
    }

    #[test]
    fn a_pair_that_training_never_shows_is_no_negative() {
        let object = Object {
            shape: Shape::Heart,
            colour: Colour::Red,
            size: Size::Small,
            texture: Texture::Plain,
            position: Position::Top,
            bounds: [0, 0, 16, 16],
        };
        let mut adjustment = vec![0.0; CLASSES];
        adjust(&object, &mut adjustment);
        let left_out: Vec<usize> = (0..CLASSES).filter(|&i| adjustment[i] < 0.0).collect();
        // red stars and plain triangles, yellow hearts, striped hearts
        let (triangle, star) = (2, 3);
        let yellow = Shape::ALL.len() + 1 + 2;
        let striped = Shape::ALL.len() + 1 + Colour::ALL.len() + 1;
        assert_eq!(left_out, [triangle, star, yellow, striped]);
    }
}
