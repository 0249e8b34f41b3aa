// Package openapi makes the OpenAPI documents, versions 2 and 3, that tell clients the shape of every kind: kubectl explain
// prints them, kubectl and Helm look up merge keys and supported parameters in them.
//
// What flows through it: the Go types of the served kinds, read by reflection (field names, patch tags, the descriptions
// that SwaggerDoc methods carry), become schemas; the declared resources become paths. What must stay true: documents are
// made when first asked for and kept compressed, since most servers are asked seldom; the same binary makes the same bytes, so
// that the hash in a URL names the content. Tests: TestDeterministic.
package openapi
