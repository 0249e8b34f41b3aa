package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// failures is where the last words of tests that did not pass are kept between runs, so that a run of a few tests does not forget the others.
func (s settings) failures() string { return strings.TrimSuffix(s.passing, ".txt") + "-not.json" }

// results is Ginkgo's report of the last run.
func (s settings) results() string { return filepath.Join(s.reports, "results.json") }

func readFailures(file string) (map[string]string, error) {
	seen := map[string]string{}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return seen, nil
	}
	if err != nil {
		return nil, err
	}
	return seen, json.Unmarshal(data, &seen)
}

func writeFailures(file string, seen map[string]string) error {
	data, err := json.MarshalIndent(seen, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// What differs from run to run is left out of the last words.
var volatile = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b(10|172|192|127)(\.\d+){3}(:\d+)?\b|-\d{3,5}\b|0x[0-9a-f]+`)

// So is where on a machine things were.
var places = regexp.MustCompile(` --(server|kubeconfig)=\S+|/\S+/(kubectl)\b`)

func shorten(o outcome) string {
	line := volatile.ReplaceAllString(places.ReplaceAllString(firstLine(o.Message), "$2"), "…")
	if o.State == skipped {
		line = "skipped: " + line
	}
	if r := []rune(line); len(r) > 200 {
		line = string(r[:200]) + "…"
	}
	if line == "" {
		line = o.State
	}
	return line
}

// firstLine is the first line that says something.
func firstLine(message string) string {
	for line := range strings.Lines(message) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}
