//! The CSI driver of the tests as a program; `tests::csi_driver` says what it does and how it is started.

use anyhow::Result;
use tests::csi_driver::options::Options;

#[tokio::main]
async fn main() -> Result<()> {
    tests::csi_driver::serve(Options::parse(std::env::args().skip(1))?).await
}
