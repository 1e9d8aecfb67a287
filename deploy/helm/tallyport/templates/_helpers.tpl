{{- define "tallyport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "tallyport" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-tallyport" (.Release.Name | trunc 42 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "tallyport.labels" -}}
app.kubernetes.io/name: tallyport
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Takes a list: the root and the component. */}}
{{- define "tallyport.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: tallyport
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "tallyport.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Fields that the pods of every component have alike. */}}
{{- define "tallyport.scheduling" -}}
priorityClassName: {{ .Values.priorityClassName | quote }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The agent's memory limit in MiB. */}}
{{- define "tallyport.memoryMiB" -}}
{{- $budget := int .Values.memory.budgetMiB -}}
{{- add $budget (div $budget 4) (int .Values.memory.receiveBuffersMiB) -}}
{{- end -}}

{{- define "tallyport.client" -}}
TALLYPORT_URL: https://localhost:9725
TALLYPORT_CA: /etc/tallyport-http/{{ .Values.http.keys.ca }}
{{- end -}}

{{/* The tables of publishers in TOML. Helm's toToml would write whole numbers with a point. */}}
{{- define "tallyport.publishers" -}}
{{- range $name, $settings := .Values.publish }}

[publish.{{ $name }}]
{{- range $key, $value := $settings }}
{{- if or (kindIs "float64" $value) (kindIs "int64" $value) (kindIs "int" $value) }}
{{ $key }} = {{ int64 $value }}
{{- else }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
