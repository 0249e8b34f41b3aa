package policy_test

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCreates creates ConfigMaps through a front door over memory without policies, with ten that mean something else, and with ten that are
// evaluated; and with ten that change the object.
func BenchmarkCreates(b *testing.B) {
	ten := func(manifests string, oldnew ...string) string {
		var all []string
		for i := range 10 {
			n := fmt.Sprint("p", i)
			all = append(all, replaced(manifests, append(oldnew, "{name: short}", "{name: "+n+"}", "{name: labelled}", "{name: "+n+"}", "name: everywhere", "name: "+n,
				"policyName: short", "policyName: "+n, "policyName: labelled", "policyName: "+n, "< 2", fmt.Sprint("< ", i+10))...))
		}
		return strings.Join(all, "\n---\n")
	}
	for _, bc := range []struct{ name, with string }{
		{"without policies", ""},
		{"10 for others", ten(short, "[configmaps]", "[secrets]")},
		{"10 evaluated", ten(short)},
		{"10 changing", ten(labelled)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			c := start(b)
			if bc.with != "" {
				c.add(bc.with)
			}
			ctx, _ := ann()
			for i := 0; b.Loop(); i++ {
				if _, err := c.Create(ctx, configMap(fmt.Sprint("c", i), "a", "b")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
