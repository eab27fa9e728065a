//! Scenes at random, distributed as those of NLVR's training part, and small changes of them.

use super::scene::{BOX, Colour, Kind, MAX_HEIGHT, MAX_ITEMS, Object, Scene, Shape, Size};
use crate::rng::Rng;

/// How often towers have one, two, three and four blocks, in a hundred.
const HEIGHTS: [usize; MAX_HEIGHT] = [20, 25, 27, 28];
/// Places tried for an item before it is given up.
const TRIES: usize = 40;

/// A scene.
pub(super) fn scene(rng: &mut Rng, kind: Kind) -> Scene {
    let boxes = std::array::from_fn(|_| match kind {
        Kind::Towers => {
            let height = 1 + rng.weighted(&HEIGHTS);
            (0..height)
                .map(|level| Object::block(rng.pick(&Colour::ALL), level))
                .collect()
        }
        Kind::Scatter => {
            let count = 1 + rng.below(MAX_ITEMS);
            let mut items = Vec::with_capacity(MAX_ITEMS);
            for _ in 0..count {
                let item = item(rng);
                place(rng, item, &mut items);
            }
            items
        }
    });
    Scene { kind, boxes }
}

fn item(rng: &mut Rng) -> Object {
    Object {
        colour: rng.pick(&Colour::ALL),
        shape: rng.pick(&Shape::ALL),
        size: rng.pick(&Size::ALL),
        x: 0,
        y: 0,
    }
}

/// Puts an item where it touches no other, if such a place is found.
fn place(rng: &mut Rng, mut item: Object, items: &mut Vec<Object>) -> bool {
    // NLVR moves what would leave the box back to its right or lower wall, so that those are touched often.
    let last = usize::from(BOX - item.size.pixels());
    for _ in 0..TRIES {
        item.x = rng.below(usize::from(BOX)).min(last) as u8;
        item.y = rng.below(usize::from(BOX)).min(last) as u8;
        if items.iter().all(|other| item.gap(other) >= 1) {
            items.push(item);
            return true;
        }
    }
    false
}

/// Changes one thing, or exchanges two.
pub(super) fn change(rng: &mut Rng, scene: &mut Scene) {
    match scene.kind {
        Kind::Towers => change_towers(rng, scene),
        Kind::Scatter => change_scatter(rng, scene),
    }
}

fn change_towers(rng: &mut Rng, scene: &mut Scene) {
    let (from, to) = (rng.below(3), rng.below(3));
    let at = rng.below(scene.boxes[from].len());
    match rng.below(6) {
        // another colour
        0 | 1 => scene.boxes[from][at].colour = rng.pick(&Colour::ALL),
        // two blocks change places
        2..=4 => {
            let other = rng.below(scene.boxes[to].len());
            let colour = scene.boxes[from][at].colour;
            scene.boxes[from][at].colour = scene.boxes[to][other].colour;
            scene.boxes[to][other].colour = colour;
        }
        // a block goes to another tower
        _ => {
            let high = scene.boxes[to].len();
            if from != to && scene.boxes[from].len() > 1 && high < MAX_HEIGHT {
                let block = scene.boxes[from].remove(at);
                scene.boxes[to].insert(rng.below(high + 1), block);
                for tower in &mut scene.boxes {
                    for (level, block) in tower.iter_mut().enumerate() {
                        *block = Object::block(block.colour, level);
                    }
                }
            }
        }
    }
}

fn change_scatter(rng: &mut Rng, scene: &mut Scene) {
    let (from, to) = (rng.below(3), rng.below(3));
    let at = rng.below(scene.boxes[from].len());
    match rng.below(8) {
        0 | 1 => scene.boxes[from][at].colour = rng.pick(&Colour::ALL),
        2 => scene.boxes[from][at].shape = rng.pick(&Shape::ALL),
        // two items exchange their colours, or colours and forms
        3 | 4 => {
            let other = rng.below(scene.boxes[to].len());
            let (a, b) = (scene.boxes[from][at], scene.boxes[to][other]);
            scene.boxes[from][at].colour = b.colour;
            scene.boxes[to][other].colour = a.colour;
            if rng.coin() {
                scene.boxes[from][at].shape = b.shape;
                scene.boxes[to][other].shape = a.shape;
            }
        }
        // another place in its box
        5 => {
            let item = scene.boxes[from].swap_remove(at);
            if !place(rng, item, &mut scene.boxes[from]) {
                scene.boxes[from].push(item);
            }
        }
        // another box
        6 => {
            if from != to && scene.boxes[from].len() > 1 && scene.boxes[to].len() < MAX_ITEMS {
                let item = scene.boxes[from].swap_remove(at);
                if !place(rng, item, &mut scene.boxes[to]) {
                    scene.boxes[from].push(item);
                }
            }
        }
        // one more or one less
        _ => {
            if rng.coin() {
                if scene.boxes[from].len() > 1 {
                    scene.boxes[from].swap_remove(at);
                }
            } else if scene.boxes[to].len() < MAX_ITEMS {
                let item = item(rng);
                place(rng, item, &mut scene.boxes[to]);
            }
        }
    }
}
