{#- In pandas' head and body the first cell of each row is that of the hidden index. -#}
<table class="results" id="{{ name | e }}">
<caption>{{ title | e }}</caption>
<thead>
{% for row in head -%}
<tr>
{%- set upper = loop.first %}
{%- for cell in row[1:] %}
{%- if cell.is_visible and cell.display_value -%}
{%- set alone = upper and not head[-1][loop.index].display_value -%}
<th scope="col{{ "group" if cell.attributes }}"{{ " " ~ cell.attributes if cell.attributes }}
{{- ' rowspan="2"' if alone }}{{ ' class="text"' if loop.index0 in texts }}>{{ cell.display_value }}</th>
{%- endif %}
{%- endfor -%}
</tr>
{% endfor -%}
</thead>
<tbody>
{% for row in body -%}
<tr>
{%- for cell in row[1:] %}
{%- set tag = "th" if loop.index0 < keys else "td" -%}
<{{ tag }}{{ ' scope="row"' if tag == "th" }}{{ ' class="text"' if loop.index0 in texts }}>{{ cell.display_value }}</{{ tag }}>
{%- endfor -%}
</tr>
{% endfor -%}
</tbody>
</table>
