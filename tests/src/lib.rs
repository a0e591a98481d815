//! End-to-end tests against real parts, and the harness that starts them.
