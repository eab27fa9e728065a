use vlm_data::image::Image;
use vlm_tasks::Vlm;
use vlm_worlds::shapes::{self, Split};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let vlm = Vlm::load(args[1].as_ref()).unwrap();
    let split: Split = args[2].parse().unwrap();
    let n: usize = args[3].parse().unwrap();
    let seed: u64 = args[4].parse().unwrap();
    for i in 0..n as u64 {
        let config = shapes::Config {
            size: 128,
            difficulty: i as f32 / n as f32,
        };
        let item = shapes::generate(&config, split, seed, i);
        let picture = item.picture;
        let image = Image::from_rgb(picture.width, picture.height, picture.rgb).unwrap();
        let questions: Vec<(usize, &str)> =
            item.qa.iter().map(|q| (0, q.question.as_str())).collect();
        let answers = vlm.answer(&[&image], &questions).unwrap();
        for (q, a) in item.qa.iter().zip(&answers) {
            let ok = usize::from(q.answer == a.text);
            println!(
                "Q\t{:?}\t{}\t{}\t{}\t{:.2}\t{ok}",
                q.kind, q.question, q.answer, a.text, config.difficulty
            );
        }
    }
}
