//! stub
use std::sync::Arc;

use super::Context;

/// Sweeps.
pub async fn run(_context: Arc<Context>) {
    std::future::pending::<()>().await;
}
