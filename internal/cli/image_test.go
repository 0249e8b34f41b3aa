package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/image"
)

func TestADamagedImageIsListedAmongTheOthers(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	var out, problems bytes.Buffer
	err := printImages(&out, &problems, []image.Stored{
		{Name: "docker.io/library/a:1", ID: digest, Digest: digest, Size: 3 << 20},
		{Name: "docker.io/library/b:1", Digest: digest, Problem: errors.New("content sha256:1 is missing")},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `NAME                    ID                    DIGEST                SIZE
docker.io/library/a:1   sha256:0123456789ab   sha256:0123456789ab   3Mi
docker.io/library/b:1   -                     sha256:0123456789ab   damaged
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	if got := problems.String(); !strings.HasPrefix(got, "image docker.io/library/b:1 is damaged: content sha256:1 is missing") || strings.Count(got, "\n") != 1 {
		t.Errorf("%s", got)
	}
}
