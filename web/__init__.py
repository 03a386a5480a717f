"""People and programs over HTTP: pages, DICOMweb, the FHIR API, health and metrics."""
