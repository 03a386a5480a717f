"""The FHIR R4 REST API without HTTP: what can be asked, how answers are made, what the server says of itself."""
