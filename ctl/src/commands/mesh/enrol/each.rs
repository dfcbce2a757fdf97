//! The same for many hosts, so many at once.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Does the same for all, so many at once; nobody's error touches another's.
pub(super) async fn each<T, U, F, Fut>(jobs: usize, all: Vec<T>, work: F) -> Vec<U>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> Fut,
    Fut: Future<Output = U> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(jobs));
    let results = Arc::new(Mutex::new(Vec::new()));
    let mut running = JoinSet::new();
    for (number, one) in all.into_iter().enumerate() {
        let (turns, results, work) = (Arc::clone(&turns), Arc::clone(&results), work(one));
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let result = work.await;
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((number, result));
        });
    }
    while running.join_next().await.is_some() {}
    let mut results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
