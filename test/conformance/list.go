package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/kubernetes/test/conformance/testdata"
	"sigs.k8s.io/yaml"
)

// conformanceTests returns the names of all conformance tests, as the suite of this version lists them.
func conformanceTests() ([]string, error) {
	data, err := testdata.GetConformanceTestdataFS().EmbeddedFS.ReadFile("conformance.yaml")
	if err != nil {
		return nil, err
	}
	var tests []struct {
		Codename string `json:"codename"`
	}
	if err := yaml.Unmarshal(data, &tests); err != nil {
		return nil, fmt.Errorf("conformance.yaml: %w", err)
	}
	var names []string
	for _, t := range tests {
		names = append(names, t.Codename)
	}
	slices.Sort(names)
	return names, nil
}

// readList reads one name a line.
func readList(file string) (map[string]bool, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	list := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			list[line] = true
		}
	}
	return list, nil
}

func writeList(file string, list map[string]bool) error {
	names := make([]string, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return os.WriteFile(file, []byte(strings.Join(names, "\n")+"\n"), 0o644)
}
