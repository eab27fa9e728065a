//! Where the objects of a scene lie.
//!
//! The layout is made on a grid of 128 × 128 pixels whatever the size of the picture, so that a scene has the same
//! truth at every size. Overlaps and gaps are measured on rasterised shapes, not guessed from circles.

use tiny_skia::FillRule;

use super::geometry::{Outline, Point, coverage};
use super::plan::Plan;
use super::scene::{Attributes, Position, Relation, RelationFact, Shape, Size, Texture};
use crate::rng::Rng;

/// Side of the layout grid.
pub(crate) const GRID: i32 = 128;
/// Least gap between objects that do not touch.
const GAP: i32 = 4;
/// Distance that every centre keeps from the lines between the nine positions.
const POSITION_MARGIN: f32 = 5.0;
/// Least distance of an object from the picture's edge.
const EDGE: f32 = 2.0;
/// Least difference of centres for a direction, 18 % of the grid.
const DIRECTION_MARGIN: f32 = 0.18 * GRID as f32;
/// A direction must exceed the difference across it by this factor.
const DIRECTION_DOMINANCE: f32 = 1.5;

/// Shortest and longest diameter of an object on the grid.
pub(crate) fn diameters(size: Size) -> (f32, f32) {
    match size {
        Size::Small => (18.2, 23.8),
        Size::Large => (36.2, 48.0),
    }
}

/// An object with its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) attributes: Attributes,
    pub(crate) outline: Outline,
    /// Longer side of the box, in grid pixels.
    pub(crate) diameter: f32,
    /// Centre of the box, in grid pixels.
    pub(crate) centre: Point,
    /// Place in [`Plan::objects`].
    pub(crate) plan_index: usize,
    depth: i32,
    stencil: Stencil,
    hidden: usize,
    holds_another: bool,
}

/// A finished layout: objects from back to front.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) objects: Vec<Placed>,
    pub(crate) positions: Vec<Position>,
    pub(crate) relations: Vec<RelationFact>,
}

/// A set of pixels with an offset.
#[derive(Clone, Debug)]
struct Bitmap {
    side: i32,
    bits: Vec<bool>,
}

impl Bitmap {
    fn count(&self) -> usize {
        self.bits.iter().filter(|&&bit| bit).count()
    }

    /// The set widened by `by` pixels in all eight directions, on a grid that is `by` wider at each side.
    fn dilated(&self, by: i32) -> Bitmap {
        let side = self.side + 2 * by;
        let at = |x: i32, y: i32| (y * side + x) as usize;
        let mut rows = vec![false; (side * side) as usize];
        for y in 0..self.side {
            for x in 0..self.side {
                if self.bits[(y * self.side + x) as usize] {
                    rows[at(x, y + by)..=at(x + 2 * by, y + by)].fill(true);
                }
            }
        }
        let mut bits = vec![false; (side * side) as usize];
        for y in 0..side {
            for other in (y - by).max(0)..=(y + by).min(side - 1) {
                for x in 0..side {
                    bits[at(x, y)] |= rows[at(x, other)];
                }
            }
        }
        Bitmap { side, bits }
    }

    /// How many pixels two sets share when `other` lies `offset` to the right of and below `self`.
    fn overlap(&self, other: &Bitmap, offset: [i32; 2]) -> usize {
        let (left, right) = (offset[0].max(0), (offset[0] + other.side).min(self.side));
        let (top, bottom) = (offset[1].max(0), (offset[1] + other.side).min(self.side));
        if left >= right {
            return 0;
        }
        let mut shared = 0;
        for y in top..bottom {
            let mine =
                &self.bits[(y * self.side + left) as usize..(y * self.side + right) as usize];
            let from = (y - offset[1]) * other.side + left - offset[0];
            let theirs = &other.bits[from as usize..(from + right - left) as usize];
            shared += mine.iter().zip(theirs).filter(|&(&a, &b)| a & b).count();
        }
        shared
    }
}

/// The pixels of an object relative to its own corner; it only moves by whole pixels.
#[derive(Clone, Debug)]
struct Stencil {
    corner: [i32; 2],
    shape: Bitmap,
    /// The shape with a ring's hole filled.
    hull: Bitmap,
    /// The hull widened by the gap that others keep.
    zone: Bitmap,
    area: usize,
}

impl Stencil {
    fn new(outline: &Outline, diameter: f32) -> Stencil {
        // Even, so that the box's centre is a corner of four pixels.
        let side = 2 * ((diameter / 2.0) as i32 + 2);
        let middle = [side as f32 / 2.0; 2];
        let bitmap = |path: Option<tiny_skia::Path>| Bitmap {
            side,
            bits: coverage(path.as_ref(), side as u32, side as u32, FillRule::EvenOdd)
                .into_iter()
                .map(|covered| covered >= 128)
                .collect(),
        };
        let shape = bitmap(outline.path(diameter, middle));
        let hull = bitmap(outline.hull_path(diameter, middle));
        Stencil {
            corner: [0, 0],
            zone: hull.dilated(GAP),
            area: shape.count(),
            shape,
            hull,
        }
    }

    fn centre(&self) -> Point {
        let half = self.shape.side / 2;
        [
            (self.corner[0] + half) as f32,
            (self.corner[1] + half) as f32,
        ]
    }

    fn move_centre_to(&mut self, centre: Point) {
        let half = self.shape.side / 2;
        self.corner = [
            libm::floorf(centre[0] + 0.5) as i32 - half,
            libm::floorf(centre[1] + 0.5) as i32 - half,
        ];
    }

    fn offset_of(&self, other: &Stencil) -> [i32; 2] {
        [
            other.corner[0] - self.corner[0],
            other.corner[1] - self.corner[1],
        ]
    }

    /// Whether `other` comes closer than the gap.
    fn is_near(&self, other: &Stencil) -> bool {
        let [x, y] = self.offset_of(other);
        self.zone.overlap(&other.hull, [x + GAP, y + GAP]) > 0
    }
}

/// The position word for a centre on the grid, if it is clear of the lines between the nine.
pub(crate) fn position_of(centre: Point) -> Option<Position> {
    let third = |v: f32| {
        let thirds = v * 3.0 / GRID as f32;
        let line = libm::floorf(thirds + 0.5);
        let near_line = (line == 1.0 || line == 2.0)
            && (thirds - line).abs() * GRID as f32 / 3.0 < POSITION_MARGIN;
        (!near_line).then_some(thirds as usize)
    };
    Some(Position::ALL[third(centre[1])? * 3 + third(centre[0])?])
}

/// The direction in which `subject` clearly lies from `object`.
pub(crate) fn direction(subject: Point, object: Point) -> Option<Relation> {
    let (dx, dy) = (subject[0] - object[0], subject[1] - object[1]);
    let clear = |along: f32, across: f32| {
        along.abs() >= DIRECTION_MARGIN && along.abs() >= DIRECTION_DOMINANCE * across.abs()
    };
    if clear(dx, dy) {
        Some(if dx < 0.0 {
            Relation::LeftOf
        } else {
            Relation::RightOf
        })
    } else if clear(dy, dx) {
        Some(if dy < 0.0 {
            Relation::Above
        } else {
            Relation::Below
        })
    } else {
        None
    }
}

/// Finds a place for every object of the plan.
pub(crate) fn place(rng: &mut Rng, plan: &Plan, difficulty: f32) -> Layout {
    // Large ones first: they need the room.
    let mut order: Vec<usize> = (0..plan.objects.len()).collect();
    order.sort_by_key(|&i| plan.objects[i].size == Size::Small);
    for attempt in 0..8 {
        let room = 1.0 - attempt as f32 / 7.0;
        if let Some(layout) = try_place(rng, plan, &order, difficulty, room) {
            return layout;
        }
    }
    place_in_cells(rng, plan, &order)
}

struct Contact {
    subject: usize,
    relation: Relation,
    object: usize,
}

fn new_object(rng: &mut Rng, plan: &Plan, plan_index: usize, room: f32) -> Placed {
    let attributes = plan.objects[plan_index];
    let (low, high) = diameters(attributes.size);
    let diameter = rng.between(low, low + (high - low) * room);
    let outline = Outline::random(rng, attributes.shape, attributes.size);
    Placed {
        attributes,
        diameter,
        centre: [0.0; 2],
        plan_index,
        depth: 0,
        stencil: Stencil::new(&outline, diameter),
        outline,
        hidden: 0,
        holds_another: false,
    }
}

fn try_place(
    rng: &mut Rng,
    plan: &Plan,
    order: &[usize],
    difficulty: f32,
    room: f32,
) -> Option<Layout> {
    let mut placed: Vec<Placed> = Vec::with_capacity(order.len());
    let mut contacts: Vec<Contact> = Vec::new();
    for &plan_index in order {
        let mut new = new_object(rng, plan, plan_index, room);
        new.depth = 4 * placed.len() as i32;
        let contact = if placed.is_empty() {
            None
        } else if rng.percent(60) && new.attributes.size == Size::Small {
            put_inside(rng, &mut new, &mut placed)
        } else {
            None
        };
        let contact = contact.or_else(|| {
            (!placed.is_empty() && rng.percent(40))
                .then(|| put_touching(rng, &mut new, &mut placed, &contacts, difficulty))
                .flatten()
        });
        match contact {
            Some((relation, object)) => contacts.push(Contact {
                subject: plan_index,
                relation,
                object,
            }),
            None => put_apart(rng, &mut new, &placed)?,
        }
        new.centre = new.stencil.centre();
        placed.push(new);
    }
    finish(placed, &contacts)
}

/// Whether the object lies in the picture with its centre clear of the lines between positions.
fn is_well_placed(object: &Placed) -> bool {
    let centre = object.stencil.centre();
    (0..2).all(|axis| {
        let half = object.outline.extent[axis] * object.diameter / 2.0;
        centre[axis] - half >= EDGE && centre[axis] + half <= GRID as f32 - EDGE
    }) && position_of(centre).is_some()
}

/// A free place; every position is equally likely to be tried.
fn put_apart(rng: &mut Rng, new: &mut Placed, placed: &[Placed]) -> Option<()> {
    for _ in 0..80 {
        let cell = rng.below(9);
        let mut centre = [0.0; 2];
        for (axis, third) in [cell % 3, cell / 3].into_iter().enumerate() {
            let half = new.outline.extent[axis] * new.diameter / 2.0 + EDGE;
            let line = |i: usize| GRID as f32 * i as f32 / 3.0;
            let low = (line(third) + POSITION_MARGIN).max(half);
            let high = (line(third + 1) - POSITION_MARGIN).min(GRID as f32 - half);
            centre[axis] = rng.between(low, high);
        }
        new.stencil.move_centre_to(centre);
        if is_well_placed(new)
            && !placed
                .iter()
                .any(|other| other.stencil.is_near(&new.stencil))
        {
            return Some(());
        }
    }
    None
}

/// A place inside an earlier large ring or plain shape of another colour.
fn put_inside(rng: &mut Rng, new: &mut Placed, placed: &mut [Placed]) -> Option<(Relation, usize)> {
    let fitting: Vec<usize> = (0..placed.len())
        .filter(|&i| {
            let Placed {
                attributes: a,
                holds_another,
                ..
            } = &placed[i];
            let open = a.shape == Shape::Ring
                || (a.texture == Texture::Plain
                    && matches!(a.shape, Shape::Circle | Shape::Square));
            open && a.size == Size::Large
                && a.colour != new.attributes.colour
                && !holds_another
                && placed[i].hidden == 0
        })
        .collect();
    if fitting.is_empty() {
        return None;
    }
    let index = rng.pick(&fitting);
    let holder = &placed[index];
    for _ in 0..12 {
        let centre = holder.stencil.centre();
        new.stencil.move_centre_to([
            centre[0] + rng.between(-3.0, 3.0),
            centre[1] + rng.between(-3.0, 3.0),
        ]);
        let near = new.stencil.hull.dilated(2);
        let offset = [
            new.stencil.corner[0] - 2 - holder.stencil.corner[0],
            new.stencil.corner[1] - 2 - holder.stencil.corner[1],
        ];
        let fits = if holder.attributes.shape == Shape::Ring {
            holder.stencil.shape.overlap(&near, offset) == 0
        } else {
            holder.stencil.hull.overlap(&near, offset) == near.count()
                && new.stencil.area * 4 <= holder.stencil.area
        };
        let others_clear = placed
            .iter()
            .enumerate()
            .all(|(i, other)| i == index || !other.stencil.is_near(&new.stencil));
        if fits && others_clear && is_well_placed(new) {
            placed[index].holds_another = true;
            new.holds_another = true;
            return Some((Relation::Inside, placed[index].plan_index));
        }
    }
    None
}

/// A place where the object overlaps an earlier one of another colour by a little, in front of it or behind it.
fn put_touching(
    rng: &mut Rng,
    new: &mut Placed,
    placed: &mut [Placed],
    contacts: &[Contact],
    difficulty: f32,
) -> Option<(Relation, usize)> {
    let fitting: Vec<usize> = (0..placed.len())
        .filter(|&i| {
            placed[i].attributes.colour != new.attributes.colour
                && !placed[i].holds_another
                && contacts
                    .iter()
                    .filter(|contact| {
                        contact.object == placed[i].plan_index
                            || contact.subject == placed[i].plan_index
                    })
                    .count()
                    < 2
        })
        .collect();
    if fitting.is_empty() {
        return None;
    }
    // At most this share of the lower object is hidden; at most a quarter.
    let share = 0.05 + 0.18 * difficulty;
    for _ in 0..6 {
        let index = rng.pick(&fitting);
        let partner = &placed[index];
        let in_front = rng.coin();
        let lower_area = if in_front {
            partner.stencil.area
        } else {
            new.stencil.area
        };
        let already = if in_front { partner.hidden } else { new.hidden };
        // Nor may most of a small object lie on a large one: that would look like inside.
        let smaller_area = new.stencil.area.min(partner.stencil.area);
        let most = ((share * lower_area as f32) as usize).min(smaller_area / 4);
        let least = 7.max(smaller_area / 40);
        let wanted = least + (rng.unit() * most.saturating_sub(least) as f32) as usize;
        let (sin, cos) = libm::sincosf(rng.between(0.0, std::f32::consts::TAU));
        let centre = partner.stencil.centre();
        let mut distance = (partner.diameter + new.diameter) * 0.75;
        let mut shared = 0;
        while distance > 0.0 && shared < wanted {
            new.stencil
                .move_centre_to([centre[0] + distance * cos, centre[1] + distance * sin]);
            shared = partner
                .stencil
                .shape
                .overlap(&new.stencil.shape, partner.stencil.offset_of(&new.stencil));
            distance -= 1.0;
        }
        let others_clear = placed
            .iter()
            .enumerate()
            .all(|(i, other)| i == index || !other.stencil.is_near(&new.stencil));
        if shared >= least && shared + already <= most && others_clear && is_well_placed(new) {
            if in_front {
                placed[index].hidden += shared;
            } else {
                new.hidden += shared;
                new.depth = partner.depth - 1;
            }
            return Some((Relation::Touching, placed[index].plan_index));
        }
    }
    None
}

/// The layout of last resort, which always fits: one smallest-size object in the middle of each of the nine cells.
fn place_in_cells(rng: &mut Rng, plan: &Plan, order: &[usize]) -> Layout {
    let mut cells: Vec<usize> = (0..9).collect();
    rng.shuffle(&mut cells);
    let placed = order
        .iter()
        .zip(cells)
        .map(|(&plan_index, cell)| {
            let mut new = new_object(rng, plan, plan_index, 0.0);
            let middle = |third: usize| GRID as f32 * (third as f32 + 0.5) / 3.0;
            new.stencil
                .move_centre_to([middle(cell % 3), middle(cell / 3)]);
            new.centre = new.stencil.centre();
            new
        })
        .collect();
    finish(placed, &[]).expect("the middles of the cells are clear of the lines between them")
}

/// Sorts from back to front and states positions and relations.
fn finish(mut placed: Vec<Placed>, contacts: &[Contact]) -> Option<Layout> {
    placed.sort_by_key(|object| object.depth);
    let positions = placed
        .iter()
        .map(|object| position_of(object.centre))
        .collect::<Option<Vec<_>>>()?;
    let mut relations = Vec::new();
    for (i, a) in placed.iter().enumerate() {
        for (j, b) in placed.iter().enumerate() {
            if i == j {
                continue;
            }
            let mut state = |relation| {
                relations.push(RelationFact {
                    subject: i,
                    relation,
                    object: j,
                });
            };
            let contact = |x: &Placed, y: &Placed| {
                contacts
                    .iter()
                    .find(|c| c.subject == x.plan_index && c.object == y.plan_index)
                    .map(|c| c.relation)
            };
            let (forth, back) = (contact(a, b), contact(b, a));
            if forth == Some(Relation::Inside) {
                state(Relation::Inside);
            } else if back != Some(Relation::Inside) {
                if forth.or(back).is_some() {
                    state(Relation::Touching);
                }
                if let Some(relation) = direction(a.centre, b.centre) {
                    state(relation);
                }
            }
        }
    }
    Some(Layout {
        objects: placed,
        positions,
        relations,
    })
}
