//! Generates types and clients from `proto/`, and `Debug` implementations that leave secrets out.
//!
//! The compiler for .proto files is a crate, so that no `protoc` has to be installed.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, Value};

const FILES: [&str; 2] = ["csi.proto", "snapshot_metadata.proto"];
/// Options that mark a field as secret: the package of the message, the option, the module of its types.
const SECRET: [(&str, &str, &str); 2] = [
    ("csi.v1", "csi.v1.csi_secret", "csi"),
    (
        "snapshotmetadata",
        "snapshotmetadata.secret",
        "snapshot_metadata",
    ),
];

/// A message, and the names of its secret fields.
type Secretive = (MessageDescriptor, Vec<String>);

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    let pool = compiler.descriptor_pool();
    let mut builder = tonic_prost_build::configure()
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        .btree_map(".");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for (package, option, module) in SECRET {
        let messages = with_secrets(&pool, package, option)?;
        builder = builder.skip_debug(
            messages
                .iter()
                .map(|(message, _)| format!(".{}", message.full_name())),
        );
        let mut code = String::new();
        for (message, secrets) in &messages {
            debug(&mut code, message, secrets)?;
        }
        fs::write(out.join(format!("{module}_debug.rs")), code)?;
    }
    builder.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The messages of a package that hold a secret, each with the names of its secret fields.
fn with_secrets(
    pool: &DescriptorPool,
    package: &str,
    option: &str,
) -> Result<Vec<Secretive>, Box<dyn Error>> {
    let option = pool
        .get_extension_by_name(option)
        .ok_or_else(|| format!("no option {option}"))?;
    let secret =
        |field: &FieldDescriptor| *field.options().get_extension(&option) == Value::Bool(true);
    let mut found = Vec::new();
    for message in pool.all_messages().filter(|m| m.package_name() == package) {
        let secrets: Vec<_> = message
            .fields()
            .filter(|field| secret(field))
            .map(|field| field.name().to_owned())
            .collect();
        if secrets.is_empty() {
            continue;
        }
        if message.parent_message().is_some() {
            return Err(format!(
                "{}: secrets in nested messages are not written here",
                message.full_name()
            )
            .into());
        }
        found.push((message, secrets));
    }
    Ok(found)
}

/// Writes a `Debug` implementation that says of a secret only whether there is one.
fn debug(code: &mut String, message: &MessageDescriptor, secrets: &[String]) -> std::fmt::Result {
    let name = message.name();
    writeln!(code, "impl ::core::fmt::Debug for {name} {{")?;
    writeln!(
        code,
        "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
    )?;
    writeln!(code, "        f.debug_struct({name:?})")?;
    for field in message.fields() {
        let field = field.name();
        let value = if secrets.iter().any(|secret| secret == field) {
            format!("&crate::Redacted::of(self.{field}.is_empty())")
        } else {
            format!("&self.{field}")
        };
        writeln!(code, "            .field({field:?}, {value})")?;
    }
    writeln!(code, "            .finish()\n    }}\n}}")
}
