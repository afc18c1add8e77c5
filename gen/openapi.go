// Package gen holds the code generated from proto/ and the OpenAPI document of
// all services. Only this file is written by hand.
package gen

import _ "embed"

// OpenAPI is the OpenAPI 2.0 document of every REST route, as JSON.
//
//go:embed api.swagger.json
var OpenAPI []byte
