//! The documents that are shipped: providers and what they are known to limit.

use std::sync::LazyLock;

use crate::resources::{Resource, read_document};
use crate::{Node, Problems};

/// The documents, as they are in the repository.
const DOCUMENTS: [&str; 3] = [
    include_str!("../shipped/providers.yaml"),
    include_str!("../shipped/shaping.yaml"),
    include_str!("../shipped/automation.yaml"),
];

static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let problems = Problems::new();
    let mut resources = Vec::new();
    for text in DOCUMENTS {
        let nodes = Node::from_yaml(text).expect("the shipped documents are YAML");
        for (position, node) in nodes.iter().enumerate() {
            let document = read_document(position + 1, node, &problems);
            resources.extend(document.and_then(|document| document.resource));
        }
    }
    problems
        .none_or(resources)
        .expect("a test reads the shipped documents")
});

/// In no order.
pub(crate) fn resources() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_documents_are_valid_as_a_configuration() {
        let text = DOCUMENTS.join("\n---\n");
        crate::Snapshot::from_documents(&text).unwrap();
        assert_eq!(resources().count(), text.matches("\nkind: ").count());
    }
}
