//! Pictures with texts for any family: batches to learn from, and what is held out to measure on.
//!
//! What a batch contains depends on the recipe and the batch's number only, so a resumed run sees what the
//! uninterrupted one would have seen.

use crate::Error;
use crate::augment::below;
use crate::recipe::TrainRecipe;
use crate::set_recipe::SetData;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use vlm_data::datasets::items::QuestionAnswer;
use vlm_data::datasets::{BoxedObject, Part, Record, Set, Split};
use vlm_data::image::{Image, ImageProcessor, Limits};
use vlm_nn::random::SplitMix64;
use vlm_tasks::similarity::PLACEHOLDER;
use vlm_tasks::{PictureRegions, RegionFiles, Shown, Vlm};
use vlm_worlds::shapes;

/// What a family learns of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A text that belongs to it: a caption, or a label in a template.
    Texts,
    /// Questions with answers; a statement is a question that is answered with `true` or `false`.
    Answers,
    /// Both of each picture.
    TextsAndAnswers,
    /// Whether a statement is true of so many pictures of the record.
    Statements(usize),
    /// What is where.
    Objects,
}

/// A batch in host memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetBatch {
    /// All pictures, one after the other.
    pub pixels: Vec<f32>,
    /// `[B, C, H, W]`, or twice as many where a statement is about two, all first ones before all second ones.
    pub shape: [usize; 4],
    /// Regions of all pictures in the same order, in place of pixels, where the recipe has files of them or a detector.
    pub regions: Vec<PictureRegions>,
    /// Texts or questions.
    pub texts: Vec<String>,
    /// An answer to each question; empty for texts.
    pub answers: Vec<String>,
    /// A text of each picture, where `texts` are questions about it.
    pub captions: Vec<String>,
    /// The place of each text's picture.
    pub pictures: Vec<usize>,
    /// The same number for records of which the same is said.
    pub ids: Vec<i64>,
    /// Whether each statement is true.
    pub truths: Vec<bool>,
    /// Channels, height and width of each picture whose objects are learned; these may differ.
    pub sizes: Vec<[usize; 3]>,
    /// The objects of each, in its pixels.
    pub objects: Vec<Vec<BoxedObject>>,
    /// For what a loss draws at random.
    pub seed: u64,
}

impl SetBatch {
    /// The random stream of a loss.
    pub(crate) fn rng(&self) -> SplitMix64 {
        SplitMix64::new(self.seed)
    }
}

/// Something to measure on.
#[derive(Clone, Debug)]
pub(crate) struct HeldOut {
    pub image: Shown,
    /// Further pictures of the record, where a statement is about them too.
    pub more: Vec<Shown>,
    pub record: Record,
}

/// The place of a record: its set, and its place there.
type Place = (usize, usize);

/// Decoded pictures and regions that are kept, in bytes.
const KEPT: usize = 256 << 20;

#[derive(Default)]
struct Kept {
    pictures: HashMap<(usize, String), Arc<Shown>>,
    bytes: usize,
}

/// Records to learn from and to measure on.
pub(crate) struct Source {
    data: SetData,
    wanted: Wanted,
    sets: Vec<Set>,
    /// Regions of the pictures of each set, or none.
    regions: Vec<RegionFiles>,
    /// What finds them otherwise.
    detector: Option<Vlm>,
    train: Vec<Place>,
    held_out: Vec<Place>,
    /// The places in `train` of each label.
    labels: Vec<Vec<usize>>,
    templates: Vec<String>,
    /// Every label, in the order of the alphabet.
    known_labels: Vec<String>,
    limits: Limits,
    kept: Mutex<Kept>,
    /// The order of an epoch.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

fn of_world(item: shapes::Item) -> Result<(Image, Record), Error> {
    let questions = item.qa.into_iter().map(|qa| QuestionAnswer {
        question: qa.question,
        answer: qa.answer,
        kind: qa.kind.name().to_owned(),
    });
    let picture = item.picture;
    let objects = item.scene.objects.iter().map(|object| BoxedObject {
        name: object.shape.word().to_owned(),
        attributes: vec![
            object.colour.word().to_owned(),
            object.size.word().to_owned(),
            object.texture.word().to_owned(),
        ],
        corners: object.bounds.map(|c| c as f32),
    });
    let record = Record {
        captions: item.captions,
        questions: questions.collect(),
        objects: objects.collect(),
        size: Some([picture.width, picture.height]),
        ..Record::default()
    };
    let image = Image::from_rgb(picture.width, picture.height, picture.rgb)?;
    Ok((image, record))
}

/// The model of a directory, which finds regions.
fn detector(path: &Path) -> Result<Vlm, Error> {
    if path.extension().is_some_and(|e| e == "toml") {
        let reason = "data.detector: expected a model's directory, found a recipe, which vlm train makes one of";
        return Err(Error::file(path, reason));
    }
    let detector = Vlm::load(path)?;
    let gives = detector.gives_regions();
    gives.map_err(|e| Error::file(path, format!("data.detector: {e}")))?;
    Ok(detector)
}

/// What is asked about a picture.
pub(crate) fn questions(record: &Record) -> Vec<QuestionAnswer> {
    let statement = record.statement.iter().map(|s| QuestionAnswer {
        question: s.text.clone(),
        answer: s.truth.to_string(),
        kind: "statement".to_owned(),
    });
    record.questions.iter().cloned().chain(statement).collect()
}

impl Source {
    /// Opens the data of a recipe; `usual` is the template of the family.
    ///
    /// # Errors
    /// A set that cannot be opened, or has nothing of what is wanted.
    pub(crate) fn open(
        data: &SetData,
        train: &TrainRecipe,
        wanted: Wanted,
        usual: &str,
    ) -> Result<Self, Error> {
        let mut source = Self {
            data: data.clone(),
            wanted,
            sets: Vec::new(),
            regions: Vec::new(),
            detector: data.detector.as_deref().map(detector).transpose()?,
            train: Vec::new(),
            held_out: Vec::new(),
            labels: Vec::new(),
            templates: data.templates.clone(),
            known_labels: Vec::new(),
            limits: Limits::default(),
            kept: Mutex::default(),
            order: Mutex::default(),
        };
        for (number, path) in data.sets.iter().enumerate() {
            let set = Set::open(path)?;
            let of_set = source.of_set(&set);
            let (train, held_out) = of_set.map_err(|reason| Error::file(path, reason))?;
            if let Some(regions) = data.regions.get(number) {
                let files =
                    RegionFiles::open(regions, data.tags.get(number).map(PathBuf::as_path))?;
                let records = train.iter().chain(&held_out).map(|&i| &set.records()[i]);
                files.check(records.flat_map(|r| r.pictures.iter().map(String::as_str)))?;
                source.regions.push(files);
            }
            source.train.extend(train.into_iter().map(|i| (number, i)));
            let held_out = held_out.into_iter().map(|i| (number, i));
            source.held_out.extend(held_out);
            source.sets.push(set);
        }
        let labels = source.sets.iter().flat_map(Set::labels);
        let labels: BTreeSet<&str> = labels.collect();
        source.known_labels = labels.into_iter().map(str::to_owned).collect();
        if source.templates.is_empty() {
            let own = source.sets.iter().flat_map(|s| s.templates());
            source.templates = own.map(|t| (*t).to_owned()).collect();
        }
        if source.templates.is_empty() {
            source.templates = vec![usual.to_owned()];
        }
        if data.distinct_labels {
            let mut labels: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for (i, place) in source.train.iter().enumerate() {
                let label = source.record(*place).label.as_deref();
                labels.entry(label.unwrap_or_default()).or_default().push(i);
            }
            let (found, needed) = (labels.len(), train.batch_size * train.accumulate);
            if found < needed {
                let place = data.sets.first().cloned().unwrap_or_default();
                let reason = format!(
                    "data.distinct_labels: expected at most {found} pairs a step, the number of labels, found {needed}"
                );
                return Err(Error::file(place, reason));
            }
            source.labels = labels.into_values().collect();
        }
        Ok(source)
    }

    /// The places of a set to learn from and to measure on.
    fn of_set(&self, set: &Set) -> Result<(Vec<usize>, Vec<usize>), String> {
        let records = set.records();
        let has_parts = records.iter().any(|r| !r.part.is_empty());
        let part = self.data.part.as_deref();
        let part = part.unwrap_or(if has_parts { "train" } else { "" });
        let of_part: Vec<usize> = (0..records.len())
            .filter(|&i| records[i].part == part)
            .collect();
        let useful = |&i: &usize| match self.wanted {
            Wanted::Texts => has_text(&records[i]),
            Wanted::Answers => !questions(&records[i]).is_empty(),
            Wanted::TextsAndAnswers => has_text(&records[i]) && !questions(&records[i]).is_empty(),
            Wanted::Statements(_) => records[i].statement.is_some(),
            Wanted::Objects => !records[i].objects.is_empty(),
        };
        let (mut train, mut held_out) = match self.data.held_out {
            Some(fraction) => {
                let some: Vec<Record> = of_part.iter().map(|&i| records[i].clone()).collect();
                let seed = self.data.split_seed;
                let split = Split { fraction, seed };
                let side = |part| {
                    let places = split.part(&some, part).into_iter();
                    places.map(|i| of_part[i]).collect::<Vec<_>>()
                };
                (side(Part::Train), side(Part::HeldOut))
            }
            None => {
                let others = (0..records.len()).filter(|i| records[*i].part != part);
                (of_part, others.collect())
            }
        };
        train.retain(useful);
        held_out.retain(useful);
        if train.is_empty() {
            let wanted = match self.wanted {
                Wanted::Texts => "captions or labels",
                Wanted::Answers => "questions",
                Wanted::TextsAndAnswers => "captions or labels and with questions",
                Wanted::Statements(_) => "statements",
                Wanted::Objects => "objects that have a box",
            };
            let part = match part.is_empty() {
                true => String::new(),
                false => format!(" in the part {part:?}"),
            };
            return Err(format!("expected records with {wanted}{part}, found none"));
        }
        Ok((train, held_out))
    }

    /// How many records are learned from; none for a world, which has no end.
    pub(crate) fn len(&self) -> usize {
        self.train.len()
    }

    fn record(&self, (set, record): Place) -> &Record {
        &self.sets[set].records()[record]
    }

    /// Sentences that labels are put into.
    pub(crate) fn templates(&self) -> &[String] {
        &self.templates
    }

    /// Every text that training may see, for a vocabulary of words; object tags among them.
    ///
    /// # Errors
    /// Regions of a picture that cannot be read.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Error> {
        let mut texts = self.detected_tags()?;
        if self.data.world.is_some() {
            texts.push(shapes::vocabulary().join(" "));
            return Ok(texts);
        }
        let names = matches!(self.wanted, Wanted::Texts | Wanted::TextsAndAnswers);
        for record in self.train.iter().map(|&place| self.record(place)) {
            if names {
                texts.extend(record.captions.iter().cloned());
                let label = record.label.as_deref();
                texts.extend(label.map(str::to_owned));
            }
            if let Wanted::Answers | Wanted::TextsAndAnswers = self.wanted {
                for qa in questions(record) {
                    texts.push(qa.question);
                    texts.push(qa.answer);
                }
            }
            if let Wanted::Statements(_) = self.wanted {
                texts.extend(record.statement.iter().map(|s| s.text.clone()));
            }
        }
        if names {
            let templates = self.templates.iter();
            texts.extend(templates.map(|t| t.replace(PLACEHOLDER, " ")));
        }
        let mut tags = BTreeSet::new();
        for &place in &self.train {
            if let Some(files) = self.regions.get(place.0) {
                for name in &self.record(place).pictures {
                    tags.extend(files.tags(name)?);
                }
            }
        }
        texts.extend(tags);
        Ok(texts)
    }

    /// Every tag that the detector may give to a region.
    ///
    /// # Errors
    /// A detector that finds no objects.
    pub(crate) fn detected_tags(&self) -> Result<Vec<String>, Error> {
        let Some(detector) = &self.detector else {
            return Ok(Vec::new());
        };
        let classes = 1..detector.model().detect()?.num_classes();
        let names = detector.class_names();
        let known = classes.filter_map(|class| names.known(class));
        Ok(known.map(str::to_owned).collect())
    }

    /// Regions of the first pictures to learn from, each of which is read to see that they fit; of one picture where a
    /// detector finds them.
    ///
    /// # Errors
    /// A picture or regions that cannot be read or do not belong together.
    pub(crate) fn some_regions(&self, pictures: usize) -> Result<Vec<PictureRegions>, Error> {
        if self.data.world.is_some() {
            let (shown, _) = self.scene(0, &mut SplitMix64::new(0))?;
            let shown = shown.into_iter().map(Arc::unwrap_or_clone);
            let regions = shown.filter_map(|shown| match shown {
                Shown::Regions(regions) => Some(regions),
                Shown::Pixels(_) => None,
            });
            return Ok(regions.collect());
        }
        let pictures = match self.detector {
            Some(_) => 1,
            None => pictures,
        };
        let records = self.train.iter();
        let names = records.flat_map(|&place| {
            let names = self.record(place).pictures.iter();
            names.map(move |name| (place.0, name))
        });
        let mut found = Vec::new();
        for (set, name) in names.take(pictures) {
            if let Shown::Regions(regions) = &*self.checked(set, name)? {
                found.push(regions.clone());
            }
        }
        Ok(found)
    }

    /// Every name of an object, and every attribute of one, each in the order of the alphabet, or as the world has them.
    pub(crate) fn names(&self) -> [Vec<String>; 2] {
        let words = |words: &mut dyn Iterator<Item = &'static str>| -> Vec<String> {
            words.map(str::to_owned).collect()
        };
        if self.data.world.is_some() {
            let attributes = shapes::Colour::ALL.iter().map(|c| c.word());
            let attributes = attributes.chain(shapes::Size::ALL.iter().map(|s| s.word()));
            let mut attributes = attributes.chain(shapes::Texture::ALL.iter().map(|t| t.word()));
            let mut names = shapes::Shape::ALL.iter().map(|s| s.word());
            return [words(&mut names), words(&mut attributes)];
        }
        let (mut names, mut attributes) = (BTreeSet::new(), BTreeSet::new());
        for &place in self.train.iter().chain(&self.held_out) {
            for object in &self.record(place).objects {
                names.insert(object.name.clone());
                attributes.extend(object.attributes.iter().cloned());
            }
        }
        [names, attributes].map(|set| set.into_iter().collect())
    }

    /// Checks every object of the sets before anything is learned, with the size of its picture: what the record says, or
    /// else the picture is read. `check` says what is wrong with one.
    ///
    /// # Errors
    /// The first object that something is wrong with, named by its set, picture and number.
    pub(crate) fn check_objects(
        &self,
        check: impl Fn(&BoxedObject, [u32; 2]) -> Result<(), String>,
    ) -> Result<(), Error> {
        for &place in self.train.iter().chain(&self.held_out) {
            let record = self.record(place);
            let name = record.pictures.first().map_or("", String::as_str);
            let size = match record.size {
                Some(size) => size,
                None => {
                    let picture = self.sets[place.0].picture(name, &self.limits)?;
                    [picture.width(), picture.height()]
                }
            };
            for (i, object) in record.objects.iter().enumerate() {
                check(object, size).map_err(|reason| {
                    let path = self.sets[place.0].archive().place(name);
                    Error::file(path, format!("objects[{i}]: {reason}"))
                })?;
            }
        }
        Ok(())
    }

    /// Every answer to the questions that are learned from, in the order of the alphabet.
    pub(crate) fn answers(&self) -> Vec<String> {
        if self.data.world.is_some() {
            let answers = shapes::answers().into_iter();
            return answers.map(str::to_owned).collect();
        }
        let records = self.train.iter().map(|&place| self.record(place));
        let answers = records.flat_map(questions).map(|qa| qa.answer);
        let answers: BTreeSet<String> = answers.collect();
        answers.into_iter().collect()
    }

    /// Texts as batches have them, for how often words are said: those of so many pictures.
    ///
    /// # Errors
    /// A picture of a world that cannot be drawn.
    pub(crate) fn some_texts(&self, pictures: usize) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        for i in 0..pictures {
            let record = match self.data.world {
                Some(_) => self.scene(i as u64, &mut SplitMix64::new(i as u64))?.1,
                None => match self.train.get(i) {
                    Some(&place) => self.record(place).clone(),
                    None => break,
                },
            };
            texts.extend(questions(&record).into_iter().map(|qa| qa.question));
            texts.extend(record.label);
            texts.extend(record.captions);
        }
        Ok(texts)
    }

    /// The first pictures to measure on, in an order drawn from the split's seed.
    ///
    /// # Errors
    /// A picture that cannot be read.
    pub(crate) fn held_out(&self, count: usize) -> Result<Vec<HeldOut>, Error> {
        if self.data.world.is_some() {
            let [low, high] = self.data.difficulty;
            let config = shapes::Config {
                size: self.data.size,
                difficulty: (low + high) / 2.0,
            };
            let indices = 0..count as u64;
            let items = indices
                .map(|i| shapes::generate(&config, shapes::Split::Validation, self.data.seed, i));
            let held_out = items.map(|item| {
                let (image, record) = of_world(item)?;
                Ok(HeldOut {
                    image: self.seen("a scene", image)?,
                    more: Vec::new(),
                    record,
                })
            });
            return held_out.collect();
        }
        // without anything held out, what is learned from tells at least whether it is learned
        let places = match self.held_out.is_empty() {
            true => &self.train,
            false => &self.held_out,
        };
        let order = shuffled(places.len(), self.data.split_seed);
        let some = order.iter().take(count).map(|&i| places[i]);
        let some = some.map(|place| {
            let record = self.record(place).clone();
            let pictures = match self.wanted {
                Wanted::Statements(pictures) => pictures,
                _ => 1,
            };
            let names = (0..pictures).map(|i| &record.pictures[i % record.pictures.len()]);
            let read = names.map(|name| Ok((*self.checked(place.0, name)?).clone()));
            let mut more: Vec<Shown> = read.collect::<Result<_, Error>>()?;
            let image = more.remove(0);
            Ok(HeldOut {
                image,
                more,
                record,
            })
        });
        some.collect()
    }

    /// Every label of the sets.
    pub(crate) fn labels(&self) -> &[String] {
        &self.known_labels
    }

    /// A picture, or its regions where the recipe has a detector; `name` is for errors.
    fn seen(&self, name: &str, image: Image) -> Result<Shown, Error> {
        let Some(detector) = &self.detector else {
            return Ok(Shown::Pixels(image));
        };
        Ok(Shown::Regions(PictureRegions::detected(
            detector, name, &image,
        )?))
    }

    /// A picture, or its regions where the recipe has files of them or a detector.
    fn shown(&self, set: usize, name: &str) -> Result<Arc<Shown>, Error> {
        let key = (set, name.to_owned());
        let lock = || {
            let kept = self.kept.lock();
            kept.unwrap_or_else(|broken| broken.into_inner())
        };
        if let Some(shown) = lock().pictures.get(&key) {
            return Ok(shown.clone());
        }
        let shown = match self.regions.get(set) {
            None => self.seen(name, self.sets[set].picture(name, &self.limits)?)?,
            Some(files) => {
                let regions = files.read(name, None)?;
                let boxes = &regions.regions.regions;
                // places are shares of the picture's size, which some files leave to the picture
                let told = regions.regions.size.is_some() || boxes.iter().all(|r| r.rect.is_none());
                Shown::Regions(match told {
                    true => regions,
                    false => {
                        let image = self.sets[set].picture(name, &self.limits)?;
                        files.read(name, Some([image.width(), image.height()]))?
                    }
                })
            }
        };
        let shown = Arc::new(shown);
        let mut kept = lock();
        let bytes = match &*shown {
            Shown::Pixels(image) => image.rgb().len(),
            Shown::Regions(picture) => 4 * picture.regions.features.len(),
        };
        if kept.bytes + bytes <= KEPT {
            kept.bytes += bytes;
            kept.pictures.insert(key, shown.clone());
        }
        Ok(shown)
    }

    /// As [`Self::shown`]; regions are compared with the picture that they belong to.
    fn checked(&self, set: usize, name: &str) -> Result<Arc<Shown>, Error> {
        let Some(files) = self.regions.get(set) else {
            return self.shown(set, name);
        };
        let image = self.sets[set].picture(name, &self.limits)?;
        let regions = files.read(name, Some([image.width(), image.height()]))?;
        Ok(Arc::new(Shown::Regions(regions)))
    }

    /// The record that is learned from at a position of the run, and its pictures.
    fn example(
        &self,
        place: Place,
        rng: &mut SplitMix64,
    ) -> Result<(Vec<Arc<Shown>>, Record), Error> {
        let record = self.record(place);
        let wanted = match self.wanted {
            Wanted::Statements(pictures) => pictures,
            _ => 1,
        };
        let first = below(rng, record.pictures.len());
        let pictures = (0..wanted).map(|i| {
            let name = &record.pictures[(first + i) % record.pictures.len()];
            self.shown(place.0, name)
        });
        Ok((pictures.collect::<Result<_, _>>()?, record.clone()))
    }

    /// A number that records with the same label share.
    fn id(&self, place: Place) -> i64 {
        let record = self.record(place);
        let known = |label: &String| self.known_labels.binary_search(label).ok();
        let label = record.label.as_ref().and_then(known);
        // what has no label is by itself
        let own = || self.known_labels.len() + (place.0 << 32) + place.1;
        label.unwrap_or_else(own) as i64
    }

    fn scene(
        &self,
        position: u64,
        rng: &mut SplitMix64,
    ) -> Result<(Vec<Arc<Shown>>, Record), Error> {
        let [low, high] = self.data.difficulty;
        let config = shapes::Config {
            size: self.data.size,
            difficulty: low + (high - low) * rng.uniform_f32(),
        };
        let split = shapes::Split::Train;
        let item = shapes::generate(&config, split, self.data.seed, position);
        let (image, record) = of_world(item)?;
        let shown = self.seen(&format!("scene {position}"), image)?;
        Ok((vec![Arc::new(shown)], record))
    }

    /// The places of the records of a step, in an order that is a function of the seed and the step alone.
    fn places(&self, step: u64, count: usize) -> Vec<Place> {
        if !self.labels.is_empty() {
            let mut rng =
                SplitMix64::new(self.data.seed ^ step.wrapping_mul(0xa076_1d64_78bd_642f));
            let labels = shuffled(self.labels.len(), rng.bits());
            let chosen = labels.iter().take(count);
            return chosen
                .map(|&label| {
                    let of_label = &self.labels[label];
                    self.train[of_label[below(&mut rng, of_label.len())]]
                })
                .collect();
        }
        let whole = self.train.len() as u64;
        let positions = step * count as u64..(step + 1) * count as u64;
        positions
            .map(|position| {
                let order = self.epoch(position / whole);
                self.train[order[(position % whole) as usize]]
            })
            .collect()
    }

    fn epoch(&self, epoch: u64) -> Arc<Vec<usize>> {
        let lock = self.order.lock();
        let mut order = lock.unwrap_or_else(|broken| broken.into_inner());
        match &*order {
            Some((known, order)) if *known == epoch => order.clone(),
            _ => {
                let seed = self.data.seed ^ epoch.wrapping_mul(0xe703_7ed1_a0b4_28db);
                let new = Arc::new(shuffled(self.train.len(), seed));
                *order = Some((epoch, new.clone()));
                new
            }
        }
    }

    /// Batch number `number`, from 0.
    ///
    /// # Errors
    /// A picture that cannot be read or prepared.
    pub(crate) fn batch(
        &self,
        number: u64,
        train: &TrainRecipe,
        processor: &ImageProcessor,
    ) -> Result<SetBatch, Error> {
        let (size, batches) = (train.batch_size, train.accumulate as u64);
        let (step, part) = (number / batches, (number % batches) as usize);
        let places = match self.data.world {
            Some(_) => Vec::new(),
            None => self.places(step, size * batches as usize),
        };
        let mut batch = SetBatch {
            pixels: Vec::new(),
            shape: [0; 4],
            regions: Vec::new(),
            texts: Vec::new(),
            answers: Vec::new(),
            captions: Vec::new(),
            pictures: Vec::new(),
            ids: Vec::new(),
            truths: Vec::new(),
            sizes: Vec::new(),
            objects: Vec::new(),
            seed: self.data.seed ^ number.wrapping_mul(0x8ebc_6af0_9c88_c6e3),
        };
        let (mut seconds, mut second_regions) = (Vec::new(), Vec::new());
        for i in 0..size {
            let position = number * size as u64 + i as u64;
            let seed = self.data.seed ^ position.wrapping_mul(0xd6e8_feb8_6659_fd93);
            let mut rng = SplitMix64::new(seed);
            let (shown, record) = match self.data.world {
                Some(_) => self.scene(position, &mut rng)?,
                None => self.example(places[part * size + i], &mut rng)?,
            };
            self.add(&mut batch, i, &record, &mut rng);
            batch.ids.push(match self.data.world {
                Some(_) => position as i64,
                None => self.id(places[part * size + i]),
            });
            for (k, shown) in shown.into_iter().enumerate() {
                let image = match Arc::unwrap_or_clone(shown) {
                    Shown::Pixels(image) => image,
                    Shown::Regions(regions) => {
                        match k {
                            0 => batch.regions.push(regions),
                            _ => second_regions.push(regions),
                        }
                        continue;
                    }
                };
                let mut objects = match self.wanted {
                    Wanted::Objects => record.objects.clone(),
                    _ => Vec::new(),
                };
                let image = self.data.augment.located(image, &mut objects, &mut rng)?;
                let values = processor.process(&image)?;
                if self.wanted == Wanted::Objects {
                    let scale = [
                        values.width as f32 / image.width() as f32,
                        values.height as f32 / image.height() as f32,
                    ];
                    for object in &mut objects {
                        object.corners = std::array::from_fn(|i| object.corners[i] * scale[i % 2]);
                    }
                    batch.objects.push(objects);
                    batch
                        .sizes
                        .push([values.channels, values.height, values.width]);
                }
                batch.shape[1..].copy_from_slice(&[values.channels, values.height, values.width]);
                batch.shape[0] += 1;
                match k {
                    0 => batch.pixels.extend(values.data),
                    _ => seconds.extend(values.data),
                }
            }
        }
        batch.pixels.extend(seconds);
        batch.regions.extend(second_regions);
        let of_one_size = batch.pixels.len() == batch.shape.iter().product::<usize>();
        if !of_one_size && self.wanted != Wanted::Objects {
            let reason = "expected pictures that the processor brings to one size, found others";
            return Err(Error::file("preprocessor_config.json", reason));
        }
        Ok(batch)
    }

    /// A text that belongs to a record: a caption where there are some, or else its label in a template.
    fn text(&self, record: &Record, rng: &mut SplitMix64) -> String {
        let text = match &record.label {
            Some(label) if record.captions.is_empty() => {
                let template = &self.templates[below(rng, self.templates.len())];
                template.replace(PLACEHOLDER, label)
            }
            _ => record.captions[below(rng, record.captions.len())].clone(),
        };
        self.data.augment.text(&text, rng)
    }

    /// Adds what is learned of picture `i`.
    fn add(&self, batch: &mut SetBatch, i: usize, record: &Record, rng: &mut SplitMix64) {
        match self.wanted {
            Wanted::Objects => batch.pictures.push(i),
            Wanted::Texts => {
                batch.texts.push(self.text(record, rng));
                batch.pictures.push(i);
            }
            Wanted::Statements(_) => {
                // only records with one are learned from
                if let Some(statement) = &record.statement {
                    batch
                        .texts
                        .push(self.data.augment.text(&statement.text, rng));
                    batch.truths.push(statement.truth);
                    batch.pictures.push(i);
                }
            }
            Wanted::Answers | Wanted::TextsAndAnswers => {
                if self.wanted == Wanted::TextsAndAnswers {
                    batch.captions.push(self.text(record, rng));
                }
                let all = questions(record);
                let order = shuffled(all.len(), rng.bits());
                for k in 0..self.data.questions_per_picture {
                    let qa = &all[order[k % order.len()]];
                    batch.texts.push(self.data.augment.text(&qa.question, rng));
                    batch.answers.push(qa.answer.clone());
                    batch.pictures.push(i);
                }
            }
        }
    }

    /// Batches from number `first` on, made ahead by another thread until the receiver is dropped.
    pub(crate) fn stream(
        self: &Arc<Self>,
        first: u64,
        train: &TrainRecipe,
        processor: &ImageProcessor,
    ) -> Receiver<Result<SetBatch, Error>> {
        let (sender, receiver) = sync_channel(4);
        let (source, train, processor) = (self.clone(), train.clone(), processor.clone());
        std::thread::spawn(move || {
            for number in first.. {
                let batch = source.batch(number, &train, &processor);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

/// Whether anything says what a record's picture shows.
fn has_text(record: &Record) -> bool {
    !record.captions.is_empty() || record.label.is_some()
}

/// `0..count` in an order that the seed draws.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut rng = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(&mut rng, last + 1));
    }
    order
}
