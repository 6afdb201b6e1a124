//! Times small pieces of hikae's work: `cargo bench -p hikae-benches`.

use divan::Bencher;
use divan::counter::BytesCount;
use hikae_benches::work::{Case, Fixture};

fn main() {
    divan::main();
}

fn cases() -> Vec<Case> {
    // cargo runs benches in the folder of their package.
    Fixture::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/work")).cases()
}

fn names() -> Vec<&'static str> {
    cases().iter().map(|case| case.name).collect()
}

#[divan::bench(args = names())]
fn work(bencher: Bencher<'_, '_>, name: &str) {
    let mut case = cases().into_iter().find(|case| case.name == name).expect("the names are those of the cases");
    // What is made on first use is not what is measured.
    (case.work)();
    bencher.counter(BytesCount::new(case.bytes)).bench_local(|| (case.work)());
}
