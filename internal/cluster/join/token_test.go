package join_test

import (
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/cluster/join"
)

func TestTokenText(t *testing.T) {
	token := join.NewToken([32]byte{1, 2, 3})
	back, err := join.ParseToken(" " + token.String() + "\n")
	if err != nil || back != token {
		t.Errorf("%v %v", err, back)
	}
	for _, bad := range []string{"", "abcdef.0123456789abcdef", "K10" + strings.Repeat("0", 63) + "::abcdef.0123456789abcdef", token.String() + "x"} {
		if _, err := join.ParseToken(bad); err == nil {
			t.Errorf("%q was taken for a token", bad)
		}
	}
}
