package podspec

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Files reads files of a pod's volumes.
type Files interface {
	// EnvFile returns the file at path in the volume; the error is fs.ErrNotExist where there is none.
	EnvFile(volume, path string) ([]byte, error)
}

// fromFile resolves a fileKeyRef (KEP-3721). As in the kubelet, a variable that is there but empty counts as missing. set is false where an
// optional key, or its file, is missing.
func fromFile(ref *corev1.FileKeySelector, files Files) (value string, set bool, err error) {
	content, err := files.EnvFile(ref.VolumeName, ref.Path)
	if errors.Is(err, fs.ErrNotExist) && isTrue(ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading env file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	value, err = EnvFileValue(content, ref.Key)
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	if value == "" && !isTrue(ref.Optional) {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q of volume %q", ref.Key, ref.Path, ref.VolumeName)
	}
	return value, value != "", nil
}

// maxEnvLine is the longest line that the kubelet reads.
const maxEnvLine = 64 << 10

// EnvFileValue returns the value of the first variable of that name in an env file, "" where there is none. The form is that part of POSIX
// shells which KEP-3721 takes over: NAME='VALUE', one after the other, where a value may hold newlines; comments and empty lines between
// them. A fault after the variable is not looked for.
func EnvFileValue(content []byte, name string) (string, error) {
	l := lines{rest: content}
	for l.next() {
		at := l.number
		line := strings.TrimLeft(l.text, " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", fmt.Errorf("line %d: missing '='", at)
		case strings.Trim(key, " \t") == "":
			return "", fmt.Errorf("line %d: empty variable name", at)
		case strings.TrimRight(key, " \t") != key:
			return "", fmt.Errorf("line %d: whitespace before '=' is not allowed", at)
		case strings.HasPrefix(value, " ") || strings.HasPrefix(value, "\t"):
			// As in a shell, the variable is empty; the rest of the line would be a command and is left out.
			if key == name {
				return "", nil
			}
			continue
		case !strings.HasPrefix(value, "'"):
			return "", fmt.Errorf("line %d: value must be enclosed in single quotes", at)
		}
		quoted, err := l.quoted(value[1:])
		if err != nil {
			return "", err
		}
		if key == name {
			return quoted, nil
		}
	}
	return "", l.err
}

// lines goes through a text line by line.
type lines struct {
	rest   []byte
	text   string
	number int
	err    error
}

func (l *lines) next() bool {
	if len(l.rest) == 0 || l.err != nil {
		return false
	}
	l.number++
	line, rest, _ := bytes.Cut(l.rest, []byte("\n"))
	if len(line) >= maxEnvLine {
		l.err = fmt.Errorf("line %d is too long", l.number)
		return false
	}
	l.text, l.rest = strings.TrimSuffix(string(line), "\r"), rest
	return true
}

// quoted reads a value to its closing quote. text is what follows the opening one.
func (l *lines) quoted(text string) (string, error) {
	begun := l.number
	var b strings.Builder
	for {
		part, after, closed := strings.Cut(text, "'")
		b.WriteString(part)
		if closed {
			if after = strings.TrimLeft(after, " \t"); after != "" && !strings.HasPrefix(after, "#") {
				return "", fmt.Errorf("line %d: unexpected content after closing quote", l.number)
			}
			return b.String(), nil
		}
		b.WriteByte('\n')
		if !l.next() {
			if l.err != nil {
				return "", l.err
			}
			return "", fmt.Errorf("line %d: unclosed single quote", begun)
		}
		text = l.text
	}
}
