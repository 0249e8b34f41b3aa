//go:build tools

package hold

import _ "honnef.co/go/tools/cmd/staticcheck"
