package main

import (
	"fmt"
	"os"
	"strings"
)

// The table of a document stands between these lines.
const (
	tableBegin = "<!-- bench-peers: the table below is written by make bench-peers -->\n"
	tableEnd   = "<!-- bench-peers: end -->\n"
)

// publish puts the table into a document in place of the one that stands there.
func (r *results) publish(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := replaceTable(string(old), r.table())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func replaceTable(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("it has no lines %q and %q between which the table goes", strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	return before + tableBegin + "\n" + strings.TrimSpace(table) + "\n\n" + tableEnd + after, nil
}
