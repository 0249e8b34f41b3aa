package command

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestInputTellsItsEndOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		from io.Reader
		tty  bool
		want string
	}{
		"all of it":               {from: strings.NewReader("abc"), want: "abc"},
		"an end with the last":    {from: iotest.DataErrReader(strings.NewReader("abc")), want: "abc"},
		"nothing":                 {from: strings.NewReader(""), want: ""},
		"a sender that has gone":  {from: io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(errors.New("reset"))), want: "ab"},
		"a terminal says Ctrl-D":  {from: strings.NewReader("exit"), tty: true, want: "exit\x04"},
		"a terminal that is lost": {from: iotest.ErrReader(errors.New("reset")), tty: true, want: "\x04"},
	} {
		in := newInput(request{stdin: tc.from, tty: tc.tty})
		got, err := io.ReadAll(in)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: read %q, %v, want %q", name, got, err, tc.want)
		}
		select {
		case <-in.ended:
		default:
			t.Errorf("%s: the end was not told", name)
		}
		if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: after the end %d, %v", name, n, err)
		}
	}
}

// A reader that goes away must not block or end the command: its output is thrown away.
func TestOutputGoesOnWithoutItsReader(t *testing.T) {
	pr, pw := io.Pipe()
	pr.Close()
	out := newOutputs(request{stdout: pw})
	for range 3 {
		if n, err := out.stdout.Write([]byte("abc")); n != 3 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if n, err := out.stderr.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("wrote %d, %v to nobody", n, err)
	}
	if out.stdout.last.Load() == 0 {
		t.Error("when something came is not known")
	}
}

func TestOutputOfExecSyncIsBounded(t *testing.T) {
	var c capped
	for range 20 {
		if n, err := c.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if got := len(c.bytes()); got != maxOutput {
		t.Errorf("kept %d bytes, want %d", got, maxOutput)
	}
}
