package laws

import (
	"go/types"
	"strings"
	"testing"
)

// TestQuantitiesBecomeNumbersInOnePlace: Quantity.Value and MilliValue wrap or are 0 beyond 64 bits, and "12E" of memory is a valid
// request.
func TestQuantitiesBecomeNumbersInOnePlace(t *testing.T) {
	p := typed(t)
	wrapping := map[string]string{}
	for _, method := range []string{"Value", "MilliValue", "ScaledValue"} {
		wrapping["(*k8s.io/apimachinery/pkg/api/resource.Quantity)."+method] = method
	}
	for _, pkg := range p.packages {
		for id, o := range pkg.TypesInfo.Uses {
			fn, ok := o.(*types.Func)
			if !ok {
				continue
			}
			at := p.at(id.Pos())
			if strings.HasPrefix(at, "internal/amount/") || strings.Contains(at, "_test.go") {
				continue
			}
			if method := wrapping[fn.FullName()]; method != "" {
				broken(t, "%s: Quantity.%s wraps beyond 64 bits: use internal/amount", at, method)
			}
		}
	}
}
