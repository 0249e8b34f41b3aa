// Package cli is what people type: one file per command, and what commands share.
//
// What flows through it: arguments in, words out; the server's own wiring is in internal/machine. What must stay true: an error says
// what was tried, what came of it and what to do next; a command that succeeds prints what to type next where there is
// something. Tests: TestScripts (cmd/knarr).
package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// ExitCode is an error that has been explained already and only carries the code to exit with.
type ExitCode int

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// ReadConfigFile sets flags from a YAML file of their names, except those given on the command line. An empty path is no file.
func ReadConfigFile(path string, flags *pflag.FlagSet) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	for name, v := range values {
		f := flags.Lookup(name)
		if f == nil || name == "config" {
			return fmt.Errorf("--config %s: there is no setting %q; settings are named as the flags of this command (--help lists them)", path, name)
		}
		if f.Changed {
			continue
		}
		text := fmt.Sprint(v)
		if list, ok := v.([]any); ok {
			parts := make([]string, len(list))
			for i := range list {
				parts[i] = fmt.Sprint(list[i])
			}
			text = strings.Join(parts, ",")
		}
		if err := flags.Set(name, text); err != nil {
			return fmt.Errorf("--config %s: %s: %w", path, name, err)
		}
	}
	return nil
}
