package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadme: the program prints what README.md says.
func TestReadme(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), filepath.Join(t.TempDir(), "view.db"), "", &out); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "It prints\n\n```\n"+out.String()+"```\n") {
		t.Errorf("README.md does not say that it prints\n%s", out.String())
	}
}
