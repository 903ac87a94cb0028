package s3source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sections are the settings of an AWS configuration file by section and name. A setting nested under
// another (indented, as in "s3 =\n  endpoint_url = …") has the name "s3.endpoint_url".
type sections map[string]map[string]string

// readINI reads a file; one that is not there is empty.
func readINI(path string) (sections, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read AWS settings: %w", err)
	}
	return parseINI(string(data)), nil
}

func parseINI(text string) sections {
	out := sections{}
	section, parent := "", ""
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if trimmed[0] == '[' {
			section, parent = strings.Join(strings.Fields(strings.Trim(trimmed, "[]")), " "), ""
			if out[section] == nil {
				out[section] = map[string]string{}
			}
			continue
		}
		name, value, ok := strings.Cut(trimmed, "=")
		if !ok || out[section] == nil {
			continue
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if nested := line[0] == ' ' || line[0] == '\t'; nested && parent != "" {
			name = parent + "." + name
		} else if parent = ""; value == "" {
			parent = name
			continue
		}
		out[section][name] = value
	}
	return out
}
