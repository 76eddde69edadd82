package meshdebug

import (
	"strings"
)

var hostileIDs = []string{
	`<script>window.hacked=1</script>`, `<img src=x onerror="window.hacked=1">`, `"'><b onclick=hacked=1>`, "abc\u202etxt.exe", "\u2066bell",
	`javascript:window.hacked=1`, strings.Repeat("long-", 40), `${window.hacked=1}`, "עברית",
}

func containsAny(text, chars string) bool { return strings.ContainsAny(text, chars) }
